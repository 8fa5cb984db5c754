"""A kernel's name says what it does, whoever wrote the kernel."""

from __future__ import annotations

import re

import pytest
from trace_support import ROOT

from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.program.ops import Collective, CollectiveKind, Copy, DType, Elementwise, Gemm, Norm
from kraken_sim.traces.kernel_names import RULES, KernelClass, class_of_name, class_of_op, short_name

KNOWN = {
    "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT": "gemm",
    "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64": "gemm",
    "ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x4_tn": "gemm",
    "void gemv2T_kernel_val<int, int, __nv_bfloat16, float, 128, 16, 4, 4, false>(cublasGemvParamsEx)": "gemm",
    "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int>>>": "gemm",
    "triton_tem_fused_mm_3": "gemm",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float>": "split_k_reduce",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128": "attention",
    "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<int>>>": "attention",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>(Flash_fwd_params)": "attention",
    "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<>::Params)": "attention",
    "kernel_unified_attention_2d": "attention",
    "void flashinfer::BatchPrefillWithPagedKVCacheKernel<(flashinfer::MaskMode)1>": "attention",
    "void pytorch_flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128>>": "attention_part",
    "void flash::prepare_varlen_num_blocks_kernel<1, true>": "attention_part",
    "void cudnn::fusion::lean_reduction_kernel<false, false, false>(void*, float*)": "attention_part",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half, float, false>": "norm",
    "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*, long, float, int, int)": "norm",
    "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0": "norm",
    "triton_per_fused_add_native_layer_norm_1": "norm",
    "void vllm::rms_norm_static_fp8_quant_kernel<c10::BFloat16>": "quantize",
    "triton_poi_fused_add_arange_flip_mul_sub_unsqueeze_view_0": "rope",
    "void vllm::rotary_embedding_kernel<c10::BFloat16, true>": "rope",
    "triton_poi_fused_cat_cos_mul_neg_sin_2": "rope",
    "triton_poi_fused_mul_silu_split_0": "activation",
    "triton_poi_fused__to_copy_clamp_div_mul_silu_split_0": "activation",
    "triton_poi_fused__to_copy_clamp_div_0": "quantize",
    "triton_red_fused__to_copy_add_clamp_div_mean_mul_pow_rsqrt_0": "norm",
    "void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel>": "activation",
    "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&)>": (
        "activation"
    ),
    "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>, std::array>": "add",
    "void at::native::vectorized_elementwise_kernel<4, at::native::rsqrt_kernel_cuda(at::TensorIt": "elementwise",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float>>>": "reduction",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>": "sampling",
    "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>": "copy",
    "triton_poi_fused_arange_copy__eq_unsqueeze_view_where_0": "copy",
    "triton_poi_fused__to_copy_add_0": "elementwise",
    "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16>": "copy",
    "Memcpy DtoD (Device -> Device)": "copy",
    "Memset (Device)": "memset",
    "void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16>": "embedding",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "collective",
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>": "collective",
    "tensorrt_llm::kernels::oneShotAllReduceKernel": "collective",
    "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<>": "collective",
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel": "other",
    "merge_attn_states_kernel": "attention_part",
}


@pytest.mark.parametrize(("name", "kind"), KNOWN.items())
def test_a_name_has_its_class(name: str, kind: str) -> None:
    assert class_of_name(name) == kind


def test_every_row_of_the_table_is_the_first_that_fits_some_name() -> None:
    """One that no name here needs could be wrong, or behind another that takes its names."""
    needed = {
        next(rule.pattern for rule in RULES if re.search(rule.pattern, name, re.IGNORECASE))
        for name, kind in KNOWN.items()
        if kind != "other"
    }
    assert needed == {rule.pattern for rule in RULES}


@pytest.mark.parametrize("file", ["h200-sxm-x1-llama-passes", "h200-sxm-x1-llama-passes-2", "h100-sxm-x1-microbench"])
def test_every_kernel_that_was_measured_has_a_class(file: str) -> None:
    measurements = read_measurements(ROOT / "validation" / "measurements" / f"{file}.jsonl")
    names = {kernel.name for record in measurements.select(KernelsRecord) for kernel in record.kernels}
    assert names
    assert not [name for name in names if class_of_name(name) is KernelClass.OTHER]


def test_ops_of_ours_have_the_classes_of_the_kernels_that_do_them() -> None:
    half = DType.FLOAT16
    assert class_of_op(Gemm(1, 2, 3, half)) is class_of_name("nvjet_hsh")
    assert class_of_op(Norm(1, 2, half)) is class_of_name("layer_norm")
    assert class_of_op(Elementwise("silu_mul", 4, 2, half)) is class_of_name("triton_poi_fused_mul_silu_split_0")
    assert class_of_op(Elementwise("mean", 4, 1, half, num_outputs=0)) is class_of_name("reduce_kernel<MeanOps>")
    assert class_of_op(Copy(4)) is class_of_name("Memcpy DtoD")
    assert class_of_op(Collective(CollectiveKind.ALL_GATHER, 8, 2)) is class_of_name("ncclDevKernel_AllGather_RING_LL")


def test_a_short_name_says_the_function_and_no_namespace() -> None:
    long = (
        "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>, std::array<char*>>"
    )
    assert short_name(long) == "vectorized_elementwise_kernel<CUDAFunctor_add>"
    assert short_name("void cublasLt::splitKreduce_kernel<32, 16>(cublasParams)") == "cublasLt::splitKreduce_kernel"
    assert len(short_name("triton_poi_fused_" + "add_" * 99)) == 64
