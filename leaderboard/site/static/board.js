"use strict";
// The board: one track at a time, tables that sort and filter, and the plots.

const sections = [...document.querySelectorAll("section.track")];
const tabs = [...document.querySelectorAll(".tabs a")];

// Shows the track that the address names; other fragments of the address change nothing.
function showTrack() {
  const named = sections.find((section) => `#${section.id}` === location.hash);
  const shownNow = sections.find((section) => !section.hidden && tabs.some((tab) => tab.ariaCurrent === "true"));
  const wanted = named ?? shownNow ?? sections[0];
  for (const section of sections) section.hidden = section !== wanted;
  for (const tab of tabs) tab.setAttribute("aria-current", String(tab.hash === `#${wanted.id}`));
}

function makeTable(element, form) {
  const isRanked = element.querySelector(".rank-head") !== null;
  const table = new DataTable(element, {
    paging: false,
    autoWidth: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    order: isRanked ? [[0, "asc"]] : [],
    columnDefs: [
      { targets: "rank-head", orderSequence: ["asc", "desc"] },
      { targets: "number", orderSequence: ["desc", "asc"] },
      { targets: "_all", orderSequence: ["asc", "desc"] },
    ],
    language: { zeroRecords: "No entry fits." },
  });
  if (form) addFilters(table, form);
  element.tHead.addEventListener("keydown", (event) => {
    if (event.key !== " " || !event.target.matches("[role=button]")) return; // DataTables handles Enter only
    event.preventDefault();
    event.target.click();
  });
}

function addFilters(table, form) {
  const { text, base, verified, count } = form.elements;
  table.search.fixed("filters", (_text, _data, index) => {
    const { dataset } = table.row(index).node();
    return (!base.value || dataset.base === base.value) && (!verified.checked || dataset.verified === "yes");
  });
  const filter = () => {
    table.search(text.value).draw();
    const { recordsDisplay, recordsTotal } = table.page.info();
    const shownOf = recordsDisplay === recordsTotal ? "" : `${recordsDisplay} of `;
    count.value = `${shownOf}${recordsTotal} ${recordsTotal === 1 ? "entry" : "entries"}`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
}

showTrack();
addEventListener("hashchange", showTrack);
for (const element of document.querySelectorAll("table.board")) {
  makeTable(element, element.closest("section").querySelector("form.filters"));
}
for (const container of document.querySelectorAll(".panels")) {
  addRates(container, window.boardData.board.tracks[container.dataset.track]);
}
