"use strict";
// Compares the two entries that the address names: compare.html?a=<id>&b=<id>. Intervals come from the build; here,
// rows are only counted.

const { tracks } = window.boardData.board;
const comparison = document.getElementById("comparison");

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const lineOf = (track, id) => track.lines.find((line) => line.id === id);
const isKnown = (id) => Object.values(tracks).some((track) => lineOf(track, id));

function load(id) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/methods/${encodeURIComponent(id)}.js`;
    script.onload = () => resolve(window.boardData[`method/${id}`]);
    script.onerror = () => reject(new Error(`The data of ${id} are missing from the site.`));
    document.head.append(script);
  });
}

// The first two entries of a track, or one that shares a track with the named entry.
function completed(wantedA, wantedB) {
  for (const track of Object.values(tracks)) {
    const ids = track.lines.map((line) => line.id);
    const a = wantedA ?? ids.find((id) => id !== wantedB);
    const b = wantedB ?? ids.find((id) => id !== a);
    if (ids.includes(a) && ids.includes(b)) return [a, b];
  }
  return [wantedA, wantedB];
}

const turn = ({ mean, low, high }) => ({ mean: -mean, low: -high, high: -low });

// Second minus first; the build stores it for ids in alphabetical order.
function differencesOf(track, a, b, data) {
  if (a < b) return data[a].differences[track][b];
  const { cells, mean } = data[b].differences[track][a];
  return { cells: cells.map(turn), mean: turn(mean) };
}

const difference = (value) => signed(percentOf(value), 1);

function rateCell(rate, format = shown) {
  const cell = element("td", "", { class: "number" });
  cell.append(
    element("span", format(rate.mean), { class: "rate" }),
    " ",
    element("span", `${format(rate.low)} to ${format(rate.high)}`, { class: "interval" }),
  );
  return cell;
}

// One of the two entries, with its verification status.
function side({ id, name, status }) {
  const line = element("p", "");
  line.append(
    element("a", name, { href: `method/${encodeURIComponent(id)}.html` }),
    " ",
    element("span", status.word, { class: `badge ${status.kind}` }),
    ` ${status.about}`,
  );
  return line;
}

// The result in words; `found` is the difference of the means.
function verdict(found, first, second) {
  const claimed = [first, second].some(({ kind }) => ["open", "rejected"].includes(kind)) ? "As claimed: " : "";
  const size = ({ mean, low, high }) => `${shown(mean)} points in the mean (${shown(low)} to ${shown(high)})`;
  if (found.low > 0) return `${claimed}${second.name} is better by ${size(found)}.`;
  if (found.high < 0) return `${claimed}${first.name} is better by ${size(turn(found))}.`;
  return `${claimed}The episodes cannot tell them apart: they differ by ${size(found)}.`;
}

// Seeds of one cell, grouped by which entry succeeded.
function split(winsA, winsB, episodes) {
  const [inA, inB] = [new Set(winsA), new Set(winsB)];
  const both = winsA.filter((seed) => inB.has(seed));
  const onlyA = winsA.filter((seed) => !inB.has(seed));
  const onlyB = winsB.filter((seed) => !inA.has(seed));
  return { both: both.length, onlyA, onlyB, neither: episodes - both.length - onlyA.length - onlyB.length };
}

function trackSection(name, a, b, data) {
  const track = tracks[name];
  const [first, second] = [lineOf(track, a), lineOf(track, b)];
  const differences = differencesOf(name, a, b, data);
  const section = element("section", "", { "aria-labelledby": `${name}-title` });
  const table = element("table", "");
  const head = table.createTHead().insertRow();
  const titles = ["Task", `${first.name}, %`, `${second.name}, %`, "Difference", "Both", "Only first", "Only second", "Neither"];
  titles.forEach((title, index) => head.append(element("th", title, { scope: "col", ...(index ? { class: "number" } : {}) })));
  const body = table.createTBody();
  const seeds = element("dl", "", { class: "facts" });
  track.cells.forEach((cell, index) => {
    const wins = [a, b].map((id) => data[id].successes[name][index]);
    const rows = split(...wins, first.episodes[index]);
    const line = body.insertRow();
    line.append(element("th", cell, { scope: "row" }), rateCell(first.cells[index]), rateCell(second.cells[index]));
    line.append(rateCell(differences.cells[index], difference));
    for (const count of [rows.both, rows.onlyA.length, rows.onlyB.length, rows.neither]) {
      line.append(element("td", String(count), { class: "number" }));
    }
    seeds.append(element("dt", cell));
    seeds.append(element("dd", `Only ${first.name}: ${rows.onlyA.join(", ") || "none"}`));
    seeds.append(element("dd", `Only ${second.name}: ${rows.onlyB.join(", ") || "none"}`));
  });
  const mean = table.createTFoot().insertRow();
  mean.append(element("th", "Mean", { scope: "row" }), rateCell(first.mean), rateCell(second.mean));
  mean.append(rateCell(differences.mean, difference), element("td", "", { colspan: "4" }));

  const scroll = element("div", "", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Comparison in ${track.title}` });
  const panels = element("div", "", { class: "panels one" });
  const details = element("details", "");
  scroll.append(table);
  details.append(element("summary", "Seeds in which they differ"), seeds);
  section.append(element("h2", track.title, { id: `${name}-title` }));
  section.append(element("p", verdict(differences.mean, first, second)), scroll, panels, details);
  addDifferences(panels, `${second.name} minus ${first.name}`, [
    ...track.cells.map((cell, index) => ({ name: cell, difference: differences.cells[index] })),
    { name: "Mean", difference: differences.mean },
  ]);
  return section;
}

async function compare() {
  const asked = new URLSearchParams(location.search);
  const [a, b] = completed(asked.get("a") ?? undefined, asked.get("b") ?? undefined);
  const form = document.querySelector("form.choose");
  for (const [side, id] of [["a", a], ["b", b]]) {
    if (id !== undefined && !isKnown(id)) return say(`No entry in simulation is called ${id}.`);
    if (id !== undefined) form.elements[side].value = id;
  }
  if (a === undefined || b === undefined) return say("There are no two entries to compare yet.");
  if (a === b) return say("These are the same entry: choose two.");
  const shared = Object.keys(tracks).filter((name) => lineOf(tracks[name], a) && lineOf(tracks[name], b));
  if (!shared.length) return say("These two entries share no track.");
  const [dataA, dataB] = await Promise.all([load(a), load(b)]);
  const sides = element("div", "", { class: "sides" });
  for (const id of [a, b]) sides.append(side(lineOf(tracks[shared[0]], id)));
  sides.append(element("a", "Swap the two", { href: `?${new URLSearchParams({ a: b, b: a })}` }));
  comparison.replaceChildren(sides, ...shared.map((name) => trackSection(name, a, b, { [a]: dataA, [b]: dataB })));
}

function say(text) {
  comparison.replaceChildren(element("p", text, { class: "empty", role: "status" }));
}

compare().catch((error) => say(error.message));
