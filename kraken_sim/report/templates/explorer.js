// Rows of a sweep to filter, to draw any two columns of, to map, and to find the Pareto front of.
(() => {
  "use strict";
  const FEW = 12, MOST_SHOWN = 100, MOST_TEXTS = 240;
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toString() : value === null ? "–" : String(value));
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  function explorer(box) {
    const data = JSON.parse(box.querySelector("script.rows").textContent);
    const { columns, inputs, outputs, smaller, palette, symbols } = data;
    const names = [...inputs, ...outputs], total = names.length ? columns[names[0]].length : 0;
    const different = (name, rows) => [...new Set(rows ? rows.map((row) => columns[name][row]) : columns[name])];
    const numeric = Object.fromEntries(names.map((name) => [name, columns[name].every((value) => value === null || typeof value === "number")]));
    const sorted = (values) => values.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
    const kept = new Map(); // what each filter lets through
    let order = { name: outputs[0], down: false };

    // Controls.
    const select = (label, options, chosen) => {
      const list = element("select", { name: label }, ...options.map(([value, text]) => element("option", { value, textContent: text || value, selected: value === chosen })));
      list.addEventListener("change", update);
      box.querySelector(".controls").append(element("label", { textContent: label }, list));
      return list;
    };
    const several = (name) => different(name).length > 1;
    const longest = (found) => found.reduce((most, name) => (most && different(most).length >= different(name).length ? most : name), "");
    const first = longest(inputs.filter((name) => several(name) && numeric[name])) || inputs.find(several) || names[0];
    const others = inputs.filter((name) => name !== first && several(name));
    const second = others.find((name) => !numeric[name]) || others[0] || first;
    const view = select("Draw", [["points", "points"], ["front", "points with their Pareto front"], ["map", "a heat map"]], "points");
    const x = select("Across", names.map((name) => [name]), first);
    const y = select("Up", names.map((name) => [name]), outputs[0]);
    const colour = select("Colour", [["", "none"], ...names.map((name) => [name])], second === first ? "" : second);
    box.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
    view.addEventListener("change", () => {
      // A map is of two questions and an answer.
      if (view.value !== "map") return;
      if (outputs.includes(y.value)) y.value = second;
      if (!outputs.includes(colour.value)) colour.value = outputs[0];
      update();
    });

    // Filters: few values are ticked, many are bounded.
    const fields = box.querySelector(".fields");
    for (const name of names) {
      const values = sorted(different(name).filter((value) => value !== null));
      if (values.length < 2 || (outputs.includes(name) && outputs.indexOf(name) > 1)) continue;
      const field = element("fieldset", {}, element("legend", { textContent: name }));
      if (values.length <= FEW) {
        const ticked = new Set(values);
        for (const value of values) {
          const tick = element("input", { type: "checkbox", checked: true });
          tick.addEventListener("change", () => {
            if (tick.checked) ticked.add(value); else ticked.delete(value);
            kept.set(name, (found) => found === null || ticked.has(found));
            update();
          });
          field.append(element("label", {}, tick, number(value)));
        }
      } else if (numeric[name]) {
        const ends = ["at least", "at most"].map((text) => {
          const end = element("input", { type: "number", step: "any", placeholder: number(values[text === "at least" ? 0 : values.length - 1]) });
          end.addEventListener("input", () => {
            const [low, high] = ends.map((input) => (input.value === "" ? null : Number(input.value)));
            kept.set(name, (found) => found === null || ((low === null || found >= low) && (high === null || found <= high)));
            update();
          });
          field.append(element("label", { textContent: text }, end));
          return end;
        });
      } else continue;
      fields.append(field);
    }
    if (!fields.children.length) box.querySelector(".filters").hidden = true;

    const best = (name) => (smaller.includes(name) || inputs.includes(name) ? 1 : -1); // 1: small is good
    function front(rows) {
      const [a, b] = [best(x.value), best(y.value)];
      const usable = rows.filter((row) => numeric[x.value] && numeric[y.value] && columns[x.value][row] !== null && columns[y.value][row] !== null);
      usable.sort((p, q) => a * (columns[x.value][p] - columns[x.value][q]) || b * (columns[y.value][p] - columns[y.value][q]));
      const found = [];
      let lowest = Infinity;
      for (const row of usable) {
        const value = b * columns[y.value][row];
        if (value < lowest) { lowest = value; found.push(row); }
      }
      return found;
    }

    const axis = (name, rows) => {
      if (!numeric[name]) return { type: "category", title: { text: name } };
      const values = rows.map((row) => columns[name][row]).filter((value) => value !== null);
      const low = values.reduce((least, value) => Math.min(least, value), Infinity), high = values.reduce((most, value) => Math.max(most, value), -Infinity);
      return { type: low > 0 && high > 30 * low ? "log" : "linear", title: { text: name } };
    };
    const words = (row) => [...inputs.filter(several), x.value, y.value].filter((name, index, all) => all.indexOf(name) === index)
      .map((name) => `${name}: ${number(columns[name][row])}`).join("\n");
    const scatter = (rows, more) => ({
      type: "scatter", mode: "markers", x: rows.map((row) => columns[x.value][row]), y: rows.map((row) => columns[y.value][row]),
      text: rows.map(words), hovertemplate: "%{text}<extra></extra>", ...more,
    });

    function points(rows) {
      const many = rows.length > 500, size = many ? 5 : 8, opacity = many ? 0.6 : 1;
      const by = colour.value, values = by ? sorted(different(by, rows).filter((value) => value !== null)) : [];
      let traces;
      if (!by) traces = [scatter(rows, { name: "rows", marker: { color: palette[0], size, opacity } })];
      else if (values.length <= FEW) {
        traces = values.map((value, index) => scatter(rows.filter((row) => columns[by][row] === value), {
          name: number(value), marker: { color: palette[index % palette.length], symbol: symbols[index % symbols.length], size, opacity },
        }));
      } else if (numeric[by]) {
        traces = [scatter(rows, { name: "rows", marker: {
          color: rows.map((row) => columns[by][row]), colorscale: "Cividis", showscale: true, size, opacity, line: { width: 0.5, color: "#7f7f80" },
          colorbar: { title: { text: by, side: "right" }, thickness: 12 },
        } })];
      } else traces = [scatter(rows, { name: "rows", marker: { color: palette[0], size, opacity } })];
      if (view.value === "front") {
        traces.push(scatter(front(rows), { name: "Pareto front", mode: "lines+markers", line: { color: "#010203", dash: "dot", shape: "linear" }, marker: { symbol: "circle-open", size: 14, color: "#010203", line: { width: 2 } } }));
      }
      return { data: traces, layout: { height: 460, showlegend: traces.length > 1, xaxis: axis(x.value, rows), yaxis: axis(y.value, rows) } };
    }

    function map(rows) {
      const across = sorted(different(x.value, rows).filter((value) => value !== null)), up = sorted(different(y.value, rows).filter((value) => value !== null));
      const value = colour.value || outputs[0], good = best(value);
      const places = [new Map(across.map((item, index) => [item, index])), new Map(up.map((item, index) => [item, index]))];
      const z = up.map(() => across.map(() => null));
      for (const row of rows) {
        const column = places[0].get(columns[x.value][row]), line = places[1].get(columns[y.value][row]), found = columns[value][row];
        if (column === undefined || line === undefined || typeof found !== "number") continue;
        const before = z[line][column];
        if (before === null || good * found < good * before) z[line][column] = found;
      }
      const few = across.length * up.length <= MOST_TEXTS;
      const trace = {
        type: "heatmap", name: "map", x: across.map(number), y: up.map(number), z, colorscale: "Cividis", reversescale: good > 0,
        text: z.map((line) => line.map((item) => (item === null ? "" : number(item)))), texttemplate: few ? "%{text}" : "",
        customdata: z.map((line, row) => line.map((item, column) => [`${x.value}: ${number(across[column])}`, `${y.value}: ${number(up[row])}`, `${value}: ${number(item)}`].join("\n"))),
        hovertemplate: "%{customdata}<extra></extra>",
        colorbar: { title: { text: value, side: "right" }, thickness: 12 }, hoverongaps: false,
      };
      return { data: [trace], layout: { height: Math.max(320, 120 + 28 * up.length), xaxis: { type: "category", title: { text: x.value } }, yaxis: { type: "category", title: { text: y.value } } } };
    }

    function table(rows) {
      const shown = [...new Set([...inputs, outputs[0], x.value, y.value, colour.value].filter(Boolean))];
      const values = columns[order.name] || [];
      const sign = order.down ? -1 : 1;
      const listed = [...rows].sort((p, q) => {
        const [a, b] = [values[p], values[q]];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      }).slice(0, MOST_SHOWN);
      const heads = shown.map((name) => {
        const button = element("button", { type: "button", textContent: name + (order.name === name ? (order.down ? " ▼" : " ▲") : "") });
        button.addEventListener("click", () => { order = { name, down: order.name === name && !order.down }; update(); });
        const head = element("th", { scope: "col" }, button);
        head.setAttribute("aria-sort", order.name === name ? (order.down ? "descending" : "ascending") : "none");
        return head;
      });
      box.querySelector("thead").replaceChildren(element("tr", {}, ...heads));
      box.querySelector("tbody").replaceChildren(...listed.map((row) => element("tr", {}, ...shown.map((name) => element("td", { textContent: number(columns[name][row]) })))));
    }

    function update() {
      const rows = [];
      for (let row = 0; row < total; row += 1) {
        let stays = true;
        for (const [name, lets] of kept) if (!lets(columns[name][row])) { stays = false; break; }
        if (stays) rows.push(row);
      }
      const below = rows.length > MOST_SHOWN ? `; the table has the first ${MOST_SHOWN}` : "";
      box.querySelector(".count").textContent = `${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")} rows${below}`;
      const chart = box.querySelector(".chart");
      if (chart.hidden_series) chart.hidden_series.clear();
      table(rows);
      return window.krakenPage.show(chart, window.krakenPage.asText(view.value === "map" ? map(rows) : points(rows)));
    }
    return update();
  }

  const all = [...document.querySelectorAll(".explorer")].map(explorer);
  Promise.all(all).then(() => { document.documentElement.dataset.explores = String(all.length); });
})();
