// Draws the figures of a page in its reader's colours and width, with legends of buttons that a keyboard reaches.
(() => {
  "use strict";
  const NARROW_PX = 560;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const root = document.documentElement;
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // The colours that figures.py uses in place of those that differ between light and dark.
  const colours = () => ({ "#010203": variable("--text"), "#7f7f80": variable("--muted"), "#fdfdfe": variable("--page") });
  const recoloured = (value, map) => {
    if (typeof value === "string") return map[value] || value;
    if (Array.isArray(value)) return value.map((item) => recoloured(item, map));
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item, map)]));
    }
    return value;
  };
  const key = (trace) => trace.legendgroup || trace.name;
  // Where plotly takes text for markup, as TEXTS in figures.py.
  const TEXTS = new Set(["categoryarray", "customdata", "name", "text", "ticktext", "x", "y"]);
  const asText = (value, isText) => {
    if (typeof value === "string") return isText ? value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\n/g, "<br>") : value;
    if (Array.isArray(value)) return value.map((item) => asText(item, isText));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, asText(item, TEXTS.has(name))]));
    return value;
  };

  function template(width) {
    const axis = {
      gridcolor: variable("--line"), zerolinecolor: variable("--line"), linecolor: variable("--muted"), automargin: true,
      title: { standoff: 8 },
    };
    const narrow = width < NARROW_PX;
    return { layout: {
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: variable("--text") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      autotypenumbers: "strict", // "8" beside "default" is a name
      margin: { l: narrow ? 6 : 12, r: narrow ? 8 : 16, t: 26, b: 12 },
      hoverlabel: { bgcolor: variable("--card"), bordercolor: variable("--muted"), font: { color: variable("--text") }, align: "left", namelength: 40 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: variable("--muted"), activecolor: variable("--accent") },
      xaxis: axis, yaxis: axis,
    } };
  }

  const wrapped = (text, most) => {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines[lines.length - 1];
      if (last && last.length + word.length >= most) lines.push(word);
      else lines[lines.length - 1] = last ? `${last} ${word}` : word;
    }
    return lines.join("<br>");
  };

  function decades(data, letter, axis) {
    if (axis.range) return axis.range[1] - axis.range[0];
    let [low, high] = [Infinity, 0];
    for (const trace of data) for (const value of trace[letter] || []) if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return high ? Math.log10(high / low) : 0;
  }

  // Titles of axes in as many lines as the width needs; a drawing whose marks are measured in slots shrinks with it.
  function fit(data, layout, width) {
    for (const name of Object.keys(layout)) {
      if (!/^[xy]axis/.test(name)) continue;
      const axis = layout[name], title = axis.title;
      // 1, 2 and 5 of every decade; within one plotly's own ticks say the whole number.
      if (axis.type === "log" && !axis.dtick && !axis.tickvals && decades(data, name[0], axis) >= 1) axis.dtick = "D2";
      if (title && title.text && !title.text.includes("<")) {
        const along = name[0] === "x" ? width : layout.height || 400;
        title.text = wrapped(title.text, Math.max(18, along / 8));
      }
    }
    const slots = layout.meta && layout.meta.slots;
    if (!slots) return;
    const narrow = width < NARROW_PX;
    if (narrow) layout.annotations = []; // the legend names the rows as well
    layout.margin = { l: narrow ? 4 : layout.meta.names_px, r: 4, t: 26, b: 8 };
    const slot = (width - layout.margin.l - layout.margin.r) / slots;
    for (const trace of data) {
      const meta = trace.meta || {};
      if (trace.line && trace.line.width) trace.line.width *= Math.min(1, slot / 22);
      if (meta.spans) trace.text = trace.customdata.map((name, index) => fitting(name, meta.spans[index] * slot));
      if (!meta.size) continue;
      trace.marker.size = Math.min(34, meta.size * slot);
      const font = Math.min(13, trace.marker.size / 1.9);
      if (font < 6) trace.mode = "markers";
      else trace.textfont.size = font;
    }
  }

  // The name, else its number, else nothing: what has room in a bar.
  const fitting = (name, width) => [name, name.replace(/^\D*/, "")].find((text) => text && 7.5 * text.length <= width) || "";

  function draw(chart) {
    const width = chart.clientWidth;
    if (!width) return Promise.resolve();
    chart.drawnAt = width;
    const map = colours();
    const data = recoloured(chart.spec.data, map), layout = recoloured(chart.spec.layout, map);
    layout.template = template(width);
    layout.width = width;
    layout.height = layout.height || 400;
    layout.showlegend = false;
    layout.uirevision = 1;
    if (coarse.matches) layout.dragmode = false; // so that a finger scrolls the page
    fit(data, layout, width);
    for (const trace of data) if (chart.hidden_series.has(key(trace))) trace.visible = false;
    const config = {
      displaylogo: false, displayModeBar: coarse.matches ? true : "hover",
      modeBarButtonsToRemove: ["lasso2d", "select2d"],
    };
    return Plotly.react(chart, data, layout, config);
  }

  const SHAPES = {
    circle: "M8 3a5 5 0 1 0 .01 0z", square: "M3.5 3.5h9v9h-9z", diamond: "M8 2l6 6-6 6-6-6z",
    x: "M4 2l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4z", cross: "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
    "triangle-up": "M8 2l6 11H2z", "triangle-down": "M8 14l6-11H2z", pentagon: "M8 2l6 4.6-2.3 7H4.3L2 6.6z",
    star: "M8 1l2 5h5l-4 3.2L12.6 15 8 11.4 3.4 15 5 9.2 1 6h5z",
  };

  function swatch(trace) {
    const first = (value) => (Array.isArray(value) ? value[0] : value);
    const line = trace.line || {}, marker = trace.marker || {};
    const colour = first(typeof marker.color === "object" ? null : marker.color) || line.color || trace.fillcolor || "#0072b2";
    const points = trace.type !== "scatter" || (trace.mode || "markers").includes("markers");
    const symbol = String(first(marker.symbol) || (trace.type === "scatter" ? "circle" : "square"));
    const open = /-(open|thin)/.test(symbol);
    const path = SHAPES[symbol.replace(/-(open|thin|dot).*/, "")] || SHAPES.circle;
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    const add = (name, values) => {
      const element = document.createElementNS(space, name);
      for (const [attribute, value] of Object.entries(values)) element.setAttribute(attribute, value);
      svg.append(element);
    };
    for (const [name, value] of [["width", 26], ["height", 16], ["viewBox", "-5 0 26 16"], ["aria-hidden", true]]) svg.setAttribute(name, value);
    if (trace.fill && trace.fill !== "none") add("rect", { x: -5, y: 3, width: 26, height: 10, fill: trace.fillcolor || colour });
    else if (trace.type === "scatter" && (trace.mode || "lines").includes("lines")) {
      const dashes = { dash: "6 4", dot: "2 3" }[line.dash] || "";
      add("line", { x1: -5, y1: 8, x2: 21, y2: 8, stroke: line.color || colour, "stroke-width": 2.5, "stroke-dasharray": dashes });
    }
    if (points && !(trace.fill && trace.fill !== "none")) {
      add("path", open ? { d: path, fill: "none", stroke: colour, "stroke-width": 2 } : { d: path, fill: colour });
    }
    return svg;
  }

  function legend(chart) {
    const box = chart.closest("figure").querySelector(".legend");
    const shown = new Map();
    for (const trace of chart.spec.data) {
      const heat = ["heatmap", "contour"].includes(trace.type);
      if (!heat && trace.showlegend !== false && trace.name && !shown.has(key(trace))) shown.set(key(trace), trace);
    }
    box.replaceChildren();
    if (shown.size < 2 && !chart.spec.layout.showlegend) return;
    const map = colours();
    for (const [name, trace] of shown) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!chart.hidden_series.has(name)));
      const label = document.createElement("span");
      label.textContent = new DOMParser().parseFromString(trace.name.replace(/<br>/g, " "), "text/html").body.textContent;
      button.append(swatch(recoloured(trace, map)), label);
      button.addEventListener("click", () => {
        if (!chart.hidden_series.delete(name)) chart.hidden_series.add(name);
        button.setAttribute("aria-pressed", String(!chart.hidden_series.has(name)));
        draw(chart);
      });
      box.append(button);
    }
  }

  // Keys for those who have no pointer.
  function pressed(event) {
    const chart = event.currentTarget, full = chart._fullLayout;
    if (event.target !== chart || !full || !full.xaxis || full.xaxis.fixedrange) return;
    const [low, high] = full.xaxis.range, middle = (low + high) / 2, half = (high - low) / 2;
    const ranges = {
      "+": [middle - half * 0.7, middle + half * 0.7], "-": [middle - half / 0.7, middle + half / 0.7],
      ArrowLeft: [low - half * 0.2, high - half * 0.2], ArrowRight: [low + half * 0.2, high + half * 0.2],
    };
    const name = event.key === "=" ? "+" : event.key;
    if (name === "0") Plotly.relayout(chart, { "xaxis.autorange": !chart.spec.layout.xaxis?.range, "xaxis.range": chart.spec.layout.xaxis?.range });
    else if (ranges[name]) Plotly.relayout(chart, { "xaxis.range": ranges[name] });
    else return;
    event.preventDefault();
  }

  const all = [];
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries) if (Math.abs(target.clientWidth - target.drawnAt) > 1) draw(target);
  });
  function show(chart, spec) {
    chart.spec = spec;
    if (!all.includes(chart)) {
      chart.hidden_series = new Set();
      chart.drawnAt = 0;
      chart.addEventListener("keydown", pressed);
      all.push(chart);
    }
    legend(chart);
    return draw(chart).then(() => watcher.observe(chart));
  }
  const again = () => Promise.all(all.map((chart) => { legend(chart); return draw(chart); }));

  dark.addEventListener("change", again);
  addEventListener("beforeprint", () => {
    root.dataset.print = "";
    for (const fold of document.querySelectorAll("details:not([open])")) { fold.open = true; fold.dataset.opened = ""; }
    for (const chart of all) chart.closest("figure").style.maxWidth = "17cm";
    again();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.print;
    for (const fold of document.querySelectorAll("details[data-opened]")) { fold.open = false; delete fold.dataset.opened; }
    for (const chart of all) chart.closest("figure").style.maxWidth = "";
    again();
  });

  window.krakenPage = { show, asText, colours, variable };
  const figures = [...document.querySelectorAll("script.figure")];
  window.krakenPage.drawn = Promise.all(figures.map((source) => (
    show(source.closest("figure").querySelector(".chart"), JSON.parse(source.textContent))
  ))).then(() => { root.dataset.drawn = String(figures.length); });
})();
