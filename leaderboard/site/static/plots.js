"use strict";
// The plots. Colours are those of the style sheet, so that they follow the theme.

const ROW_HEIGHT = 22;
const AXIS_HEIGHT = 46;
const MOST_ROWS = 20; // maximum in a plot of success rates; the table has all
const LABEL_LENGTH = 24; // characters of a name beside a plot
const STYLE = { fontSize: "12px", color: "var(--text)", background: "none", overflow: "visible" };

const percentOf = (rate) => 100 * rate;
const shown = (rate) => percentOf(rate).toFixed(1).replace("-", "−");
const signed = (points, digits) => (points > 0 ? "+" : "") + points.toFixed(digits).replace("-", "−");
const interval = ({ mean, low, high }) => `${shown(mean)} % (${shown(low)} to ${shown(high)})`;
const shorten = (name) => (name.length > LABEL_LENGTH ? `${name.slice(0, LABEL_LENGTH - 1)}…` : name);
const marginFor = (names) => 14 + 7 * Math.max(...names.map((name) => shorten(name).length));

// Adds a figure to `container` that `draw(width)` fills, again whenever its width changes.
function addFigure(container, caption, draw) {
  const figure = document.createElement("figure");
  const title = document.createElement("figcaption");
  const box = document.createElement("div");
  title.textContent = caption;
  figure.append(title, box);
  container.append(figure);
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now === 0 || now === width) return; // hidden, or unchanged
    width = now;
    const svg = draw(width);
    svg.setAttribute("role", "img");
    for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label"); // the figure has one
    box.replaceChildren(svg);
  }).observe(figure);
}

// Success rates of one cell: `lines` of {id, name, kind, rate: {mean, low, high}}; the axis is from `start` to 100 %.
function ratesPlot(lines, caption, start, width) {
  const names = new Map(lines.map((line) => [line.id, line.name]));
  const channels = (rows) => ({
    data: rows,
    x: (line) => percentOf(line.rate.mean),
    x1: (line) => percentOf(line.rate.low),
    x2: (line) => percentOf(line.rate.high),
    title: (line) => `${line.name}: ${interval(line.rate)}`,
  });
  const all = channels(lines);
  const references = channels(lines.filter((line) => line.kind === "reference"));
  return Plot.plot({
    width,
    height: AXIS_HEIGHT + ROW_HEIGHT * lines.length,
    marginTop: 4,
    marginBottom: AXIS_HEIGHT - 4,
    marginLeft: marginFor(lines.map((line) => line.name)),
    marginRight: 14,
    style: STYLE,
    ariaLabel: `Success rates in ${caption}: ${lines.map((line) => `${line.name} ${interval(line.rate)}`).join("; ")}`,
    x: { domain: [start, 100], ticks: 5, label: "success, %", labelAnchor: "center", labelArrow: "none", grid: true },
    y: { domain: lines.map((line) => line.id), label: null, tickSize: 0, tickFormat: (id) => shorten(names.get(id)) },
    marks: [
      Plot.ruleX(references.data, { x: references.x, stroke: "var(--muted)", strokeDasharray: "3 3" }),
      Plot.ruleY(lines, { x1: all.x1, x2: all.x2, y: "id", strokeWidth: 2, stroke: "var(--bar)" }),
      Plot.dot(lines, {
        x: all.x, y: "id", title: all.title, r: 4.5, strokeWidth: 1.5,
        symbol: (line) => (line.kind === "reference" ? "diamond" : "circle"),
        fill: (line) => (line.kind === "ranked" ? "var(--accent)" : "var(--page)"),
        stroke: (line) => (line.kind === "reference" ? "var(--text)" : "var(--accent)"),
      }),
    ],
  });
}

// One plot per cell of a track in data/board.js.
function addRates(container, track) {
  const of = (...kinds) => track.lines.filter((line) => kinds.includes(line.kind));
  const lines = [...of("ranked", "open").slice(0, MOST_ROWS), ...of("reference")];
  if (!lines.length) return;
  const lowest = Math.min(...lines.flatMap((line) => line.cells.map(({ low }) => percentOf(low))));
  const start = 10 * Math.floor(lowest / 10);
  track.cells.forEach((cell, index) => {
    const rates = lines.map((line) => ({ ...line, rate: line.cells[index] }));
    addFigure(container, cell, (width) => ratesPlot(rates, cell, start, width));
  });
}

// Learning curves by task: lists of [steps, success].
function addCurves(container, curves) {
  const most = Math.max(...Object.values(curves).flat().map(([steps]) => steps));
  for (const [task, curve] of Object.entries(curves)) {
    addFigure(container, task, (width) =>
      Plot.plot({
        width,
        height: 190,
        marginTop: 26,
        marginLeft: 40,
        marginRight: 16,
        marginBottom: 40,
        style: STYLE,
        ariaLabel: `Learning curve of ${task}: success on validation episodes over environment steps`,
        x: {
          domain: [0, most], ticks: Math.max(2, Math.floor(width / 90)), tickFormat: (steps) => d3.format("~s")(steps),
          label: "environment steps", labelAnchor: "center", labelArrow: "none",
        },
        y: { domain: [0, 100], ticks: 5, label: "success, %", labelArrow: "none", grid: true },
        marks: [
          Plot.lineY(curve, { x: "0", y: ([, success]) => percentOf(success), stroke: "var(--accent)", strokeWidth: 2 }),
          Plot.dot(curve, {
            x: "0", y: ([, success]) => percentOf(success), r: 2.5, fill: "var(--accent)",
            title: ([steps, success]) => `${steps} steps: ${shown(success)} %`,
          }),
        ],
      }),
    );
  }
}

// Paired differences: `rows` of {name, difference: {mean, low, high}}.
function addDifferences(container, caption, rows) {
  const ends = rows.flatMap(({ difference: { low, high } }) => [percentOf(low), percentOf(high)]);
  addFigure(container, caption, (width) =>
    Plot.plot({
      width,
      height: AXIS_HEIGHT + ROW_HEIGHT * rows.length,
      marginTop: 4,
      marginBottom: AXIS_HEIGHT - 4,
      marginLeft: marginFor(rows.map(({ name }) => name)),
      marginRight: 16,
      style: STYLE,
      ariaLabel: `${caption}: ${rows.map(({ name, difference }) => `${name} ${interval(difference)}`).join("; ")}`,
      x: {
        domain: [Math.min(...ends, -5), Math.max(...ends, 5)], nice: true, ticks: 5, grid: true, tickFormat: (points) => signed(points, 0),
        label: "difference in points", labelAnchor: "center", labelArrow: "none",
      },
      y: { domain: rows.map(({ name }) => name), label: null, tickSize: 0 },
      marks: [
        Plot.ruleX([0], { stroke: "var(--text)" }),
        Plot.ruleY(rows, {
          x1: ({ difference }) => percentOf(difference.low), x2: ({ difference }) => percentOf(difference.high),
          y: "name", stroke: "var(--bar)", strokeWidth: 2,
        }),
        Plot.dot(rows, {
          x: ({ difference }) => percentOf(difference.mean), y: "name", r: 4.5, fill: "var(--accent)",
          title: ({ name, difference }) => `${name}: ${interval(difference)}`,
        }),
      ],
    }),
  );
}
