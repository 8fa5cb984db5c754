"""The table of collective algorithms: every reader reads it, every row does what it says, a new row is enough."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import pytest

from kraken_sim import link_traffic, predict_op, simulate, simulate_concurrent
from kraken_sim.cli import main
from kraken_sim.costs.collectives import algorithms, collective_cost
from kraken_sim.costs.collectives.algorithms import ALGORITHMS, Algorithm, Scope, algorithm_named, algorithms_for
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.costs.links.traffic import link_bytes
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.errors import InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.scenario.collective import CollectiveSpec
from kraken_sim.scenario.spec import Scenario, scenario_json_schema
from kraken_sim.standalone.concurrent import JobSpec

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.routes import Group, Traffic

MIB = 2**20
H100 = load_profile("h100-sxm-x8")
NODES = load_profile("h100-sxm-2x8")


def scenario(hardware: str, kind: str = "standard", **collective: object) -> dict[str, object]:
    return {
        "hardware": hardware,
        "model": {"preset": "1.3B"},
        "architecture": {"kind": kind},
        "context_length": 256,
        "runtime": {"collective": collective},
    }


# A row of one's own ----------------------------------------------------------------------------------------


def star_cost(call: CollectiveCall) -> CollectiveCost:
    """All send to rank 0, which adds and sends the sum to all: its link carries n-1 messages in and out."""
    n, line = call.interconnect.num_devices, call.interconnect.bandwidth_bytes_per_s
    transfer_s = 2.0 * (n - 1) * call.num_bytes / line
    sent = 2.0 * (n - 1) / n * call.num_bytes
    return CollectiveCost(1e-5 + transfer_s, 1e-5, transfer_s, "star", "simple", 4, 0.0, sent, "a star")


def star_traffic(group: Group, num_bytes: float) -> Traffic:
    spokes = range(1, group.num_devices)
    return group.traffic({pair: num_bytes for rank in spokes for pair in ((rank, 0), (0, rank))})


def star_problem(call: CollectiveCall) -> str | None:
    return "a star has an even number of ranks" if call.interconnect.num_devices % 2 else None


STAR = Algorithm(
    "star",
    frozenset({CollectiveKind.ALL_REDUCE}),
    Library.NCCL,
    Scope.ONE_NODE,
    star_cost,
    star_traffic,
    star_problem,
)


@pytest.fixture
def with_star(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms, "ALGORITHMS", (*ALGORITHMS, STAR))


@pytest.mark.usefixtures("with_star")
class TestARowOfOnesOwn:
    QUESTION: ClassVar[dict[str, object]] = {
        "op": "all_reduce",
        "bytes": 64 * MIB,
        "num_devices": 4,
        "algorithm": "star",
    }

    def test_it_prices_one_op(self) -> None:
        line = H100.topology.interconnect(4).bandwidth_bytes_per_s
        expected = 1e-5 + 6 * 64 * MIB / line + H100.launch.graph_node_gap_s
        assert predict_op(H100, self.QUESTION) == pytest.approx(expected)

    def test_its_bytes_lie_on_links(self) -> None:
        leaving = {
            link.source: num_bytes
            for link, num_bytes in link_traffic(H100, self.QUESTION).items()
            if link.source.startswith("gpu")
        }
        assert leaving == {"gpu0": 3 * 64 * MIB, **{f"gpu{rank}": 64 * MIB for rank in (1, 2, 3)}}

    def test_it_runs_in_a_scenario_and_shares_links_in_it(self) -> None:
        asked = scenario("h100-sxm-x8", algorithm="star") | {"num_devices": 4}
        assert Scenario.model_validate(asked).runtime.collective.algorithm == "star"
        prediction = simulate(asked)
        assert {span.detail for span in prediction.timeline.spans if span.kind == "collective"} == {"a star"}
        groups = asked | {"num_devices": 8, "architecture": {"kind": "kraken", "ways": 2}}
        groups["hardware"] = "l40s-x8"
        assert any("groups share links" in span.detail for span in simulate(groups).timeline.spans)

    def test_it_is_refused_where_it_cannot_run(self) -> None:
        with pytest.raises(InputError, match=r"runtime.collective.algorithm: a star has an even number of ranks"):
            predict_op(H100, self.QUESTION | {"num_devices": 3})
        with pytest.raises(InputError, match="star is for all_reduce; all_gather within a node runs as ring"):
            predict_op(H100, self.QUESTION | {"op": "all_gather"})
        with pytest.raises(InputError, match="star is for groups on one node"):
            predict_op(NODES, self.QUESTION | {"num_devices": 16})

    def test_nobody_gets_it_who_does_not_ask(self) -> None:
        assert predict_op(H100, {"op": "all_reduce", "bytes": 1024, "num_devices": 2}) > 0.0
        assert "star" not in {
            collective_cost(
                CollectiveKind.ALL_REDUCE, size, H100.topology.interconnect(4), H100.device, H100.collectives, policy
            ).algorithm
            for size in (1024, MIB, 256 * MIB)
            for policy in (CollectivePolicy(), CollectivePolicy(library=Library.CUSTOM))
        }

    def test_several_at_once_share_links(self) -> None:
        one = {"op": "all_reduce", "bytes": 64 * MIB, "algorithm": "star"}
        apart = simulate_concurrent(H100, [one | {"ranks": [0, 1]}, one | {"ranks": [2, 3]}])
        assert [found.slowdown for found in apart] == [pytest.approx(1.0)] * 2
        assert simulate_concurrent(H100, [one | {"ranks": [0, 1]}, one | {"ranks": [0, 2]}])[0].slowdown > 1.5

    def test_the_command_line_and_the_schema_know_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        options = ["--hardware", "h100-sxm-x8", "--num-devices", "4", "-b", "1M", "-e", "1M", "--json", "-"]
        assert main(["collective", "all_reduce", *options, "--algorithm", "star"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"][0]["algorithm"] == "star"
        with pytest.raises(SystemExit):
            main(["collective", "--help"])
        assert "star" in capsys.readouterr().out
        assert "star" in schema_names()

    def test_custom_kernels_of_ones_own_win_where_they_are_fastest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def at_once(call: CollectiveCall) -> CollectiveCost:
            return replace(star_cost(call), busy_s=1e-9, latency_s=0.0, transfer_s=1e-9, algorithm="fast_star")

        fast = replace(STAR, name="fast_star", library=Library.CUSTOM, cost=at_once)
        monkeypatch.setattr(algorithms, "ALGORITHMS", (*ALGORITHMS, fast))
        question = {"op": "all_reduce", "bytes": 1024, "num_devices": 4, "library": "custom"}
        assert predict_op(H100, question) == pytest.approx(1e-9 + H100.launch.graph_node_gap_s)


def schema_names() -> list[str]:
    field = scenario_json_schema()["$defs"]["CollectiveSpec"]["properties"]["algorithm"]
    (names,) = (option["enum"] for option in field["anyOf"] if "enum" in option)
    assert isinstance(names, list)
    return names


def test_without_the_row_nobody_knows_it() -> None:
    with pytest.raises(InputError, match="must be one of ring"):
        simulate(scenario("h100-sxm-x8", algorithm="star"))
    with pytest.raises(InputError, match="must be one of ring"):
        predict_op(H100, TestARowOfOnesOwn.QUESTION)
    assert "star" not in schema_names()


# The rows that ship ----------------------------------------------------------------------------------------


def test_names_are_different() -> None:
    assert len({row.name for row in ALGORITHMS}) == len(ALGORITHMS)


@pytest.mark.parametrize("spans_nodes", [False, True])
def test_nccl_has_an_algorithm_for_every_collective_everywhere(spans_nodes: bool) -> None:
    for kind in CollectiveKind:
        assert algorithms_for(kind, Library.NCCL, spans_nodes=spans_nodes)


@pytest.mark.parametrize(
    ("row", "kind"),
    [pytest.param(row, kind, id=f"{row.name}-{kind}") for row in ALGORITHMS for kind in sorted(row.kinds)],
)
def test_a_rows_cost_and_traffic_are_of_the_same_bytes(row: Algorithm, kind: CollectiveKind) -> None:
    """What leaves the GPUs over their links is what the cost says; a Broadcast's last rank sends none."""
    for profile, num_devices in ((H100, 4), (NODES, 16)):
        gpus, spans_nodes = profile.topology.group(num_devices), num_devices == 16
        if not row.is_for(spans_nodes=spans_nodes):
            continue
        policy = CollectivePolicy(row.library, algorithm=row.name)
        interconnect = interconnect_of(profile.topology, gpus, kind)
        cost = collective_cost(kind, 64 * MIB, interconnect, profile.device, profile.collectives, policy)
        assert cost.algorithm == row.name
        moved = link_bytes(profile.topology, gpus, kind, row.name, 64.0 * MIB)
        leaving = sum(num_bytes for link, num_bytes in moved.items() if link.source.startswith("gpu"))
        senders = num_devices - 1 if kind is CollectiveKind.BROADCAST else num_devices
        assert leaving == pytest.approx(senders * cost.link_bytes) or spans_nodes
        assert leaving > 0.0


def test_a_hierarchy_runs_on_several_nodes_and_is_refused_on_one() -> None:
    asked = scenario("h100-sxm-2x8", algorithm="hierarchical")
    prediction = simulate(asked)
    details = {span.detail for span in prediction.timeline.spans if span.kind == "collective"}
    assert all(detail.startswith("hierarchical simple over 2 nodes") for detail in details)
    with pytest.raises(InputError, match="hierarchical is for groups on several nodes, and this one is within a node"):
        simulate(scenario("h100-sxm-x8", algorithm="hierarchical"))
    with pytest.raises(InputError, match="hierarchical is for groups on several nodes"):
        simulate(asked | {"num_devices": 8})
    with pytest.raises(InputError, match="needs as many GPUs on every node"):
        predict_op(NODES, {"op": "all_reduce", "bytes": MIB, "num_devices": 12, "algorithm": "hierarchical"})


def test_groups_within_the_nodes_of_a_program_on_several_keep_the_librarys_choice() -> None:
    """A 2-way Kraken on 16 GPUs adds up among 8 GPUs of a node, and between the two nodes."""
    wide = scenario("h100-sxm-2x8") | {"architecture": {"kind": "kraken", "ways": 2}}
    details = {
        algorithm: {span.name: span.detail for span in simulate(wide | runtime).timeline.spans if span.op}
        for algorithm, runtime in (
            (name, {"runtime": {"collective": {"algorithm": name}}}) for name in (None, "hierarchical")
        )
    }
    changed = {name for name, detail in details[None].items() if details["hierarchical"][name] != detail}
    assert changed
    assert all(details["hierarchical"][name].startswith("hierarchical") for name in changed)
    assert any("NCCL" in detail for detail in details["hierarchical"].values())


def test_a_copy_engine_takes_what_a_transfer_takes_and_no_sm() -> None:
    question = {"op": "send_recv", "bytes": 64 * MIB, "num_devices": 2, "library": "custom", "algorithm": "copy"}
    (transfer,) = simulate_concurrent(H100, [{"op": "transfer", "bytes": 64 * MIB, "ranks": [0, 1]}])
    assert predict_op(H100, question) == pytest.approx(transfer.alone_s + H100.launch.graph_node_gap_s)
    assert algorithm_named("copy").scope is Scope.ONE_NODE
    fastest = predict_op(H100, {key: value for key, value in question.items() if key != "algorithm"})
    assert fastest == pytest.approx(predict_op(H100, question))


# The fields that say how collectives run -------------------------------------------------------------------


def test_jobs_are_the_collectives_and_a_transfer() -> None:
    assert set(get_args(JobSpec.model_fields["op"].annotation)) == {*CollectiveKind, "transfer"}


def test_scenarios_ops_and_jobs_have_the_same_fields() -> None:
    common = set(CollectiveSpec.model_fields)
    assert common == {"library", "channels", "transport", "algorithm", "protocol", "selection", "version"}
    assert common < set(JobSpec.model_fields)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"algorithm": "tre"}, "did you mean 'tree'"),
        ({"algorithm": "one_shot"}, "set library: custom, or use ring or tree or nvls"),
        ({"protocol": "ll64"}, "must be one of ll, ll128, simple"),
        ({"channels": 65}, "must be at most 64"),
        ({"library": "nccl2"}, "must be one of nccl, custom"),
        ({"version": "2.9"}, "must be a version of NCCL from 2.18 on"),
    ],
)
def test_wrong_fields_are_named_alike_everywhere(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word) as in_scenario:
        simulate(scenario("h100-sxm-x8", **fields))
    with pytest.raises(InputError, match=word) as in_op:
        predict_op(H100, {"op": "all_reduce", "bytes": 8, "num_devices": 2, **fields})
    with pytest.raises(InputError, match=word) as in_job:
        simulate_concurrent(H100, [{"op": "all_reduce", "bytes": 8, "ranks": [0, 1], **fields}])
    (name,) = fields
    paths = [caught.value.problems[0].path for caught in (in_scenario, in_op, in_job)]
    assert [path.split(".")[-1] for path in paths] == [name] * 3


def test_a_version_of_nccl_chooses_in_scenarios_ops_and_jobs() -> None:
    """One MiB over four H100: NCCL 2.20 left LL for half as fast on rings."""
    op = {"op": "all_reduce", "bytes": 2**20, "num_devices": 4}
    job = {"op": "all_reduce", "bytes": 2**20, "ranks": [0, 1, 2, 3]}

    def ended(**fields: Any) -> list[float | None]:
        found = [simulate(scenario("h100-sxm-x8", **fields)).ttft_s, predict_op(H100, {**op, **fields})]
        return [*found, simulate_concurrent(H100, [{**job, **fields}])[0].end_s]

    own = H100.collectives.nccl_minor_version
    assert ended(version=f"2.{own}") == ended()
    assert all(a != b for a, b in zip(ended(version="2.20.5"), ended(), strict=True))


def test_a_scenarios_algorithm_is_an_all_reduces() -> None:
    with pytest.raises(
        InputError, match="algorithm: must be one of ring, tree, nvls, nvls_tree, hierarchical, symmetric"
    ):
        simulate(scenario("h100-sxm-x8", algorithm="send_recv"))


def test_a_forced_protocol_reaches_every_collective_of_a_program() -> None:
    """Cost models look the protocol up in tables by its name."""
    policy = CollectiveSpec.model_validate({"protocol": "simple"}).policy()
    assert type(policy.protocol) is str
