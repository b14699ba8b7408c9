// One batch: its progress as it comes, the rows that a person is to look at, and what can be done with it.

import { download, follow, get, post, postJson } from "/page/http.js";
import { byId, cell, count, duration, save, sure } from "/page/elements.js";

const SVG = "http://www.w3.org/2000/svg";
const OUTCOMES = ["issued", "refused", "unresolved"];
const ROWS_AT_ONCE = 100;

// The batch's rows that a person is to look at: how each list is asked for, and what stands beside a row's number and id.
const LISTS = {
  refused: { query: "outcome=refused", cells: (row) => [row.code, row.message] },
  noted: { query: "noted=true", cells: (row) => [row.card_id ?? row.code, row.note] },
};

const STATES = {
  running: "running",
  paused: "paused",
  cancelling: "being cancelled",
  cancelled: "cancelled",
  finished: "finished",
  interrupted: "interrupted: upload the same file again to finish it",
  open: "jobs sent one by one or through a queue",
};

// The batch that is shown; null if none is.
let shown = null;
let attempt = null;

function underWay({ state }) {
  return ["running", "paused", "cancelling"].includes(state);
}

export function stateWords({ state, reason }) {
  return reason ? `${STATES[state]} (${reason})` : STATES[state];
}

export function closeBatch() {
  shown?.stop.abort();
  shown = null;
}

export function openBatch(name, attempted) {
  closeBatch();
  attempt = attempted;
  const lists = Object.fromEntries(Object.keys(LISTS).map((list) => [list, { counted: 0, fetched: 0, next: null }]));
  const batch = { name, path: `/v1/batches/${encodeURIComponent(name)}`, stop: new AbortController(), ended: false, lists };
  shown = batch;
  byId("batch-title").textContent = name;
  for (const list of Object.keys(LISTS)) {
    byId(list).hidden = true;
    byId(`${list}-rows`).replaceChildren();
  }
  byId("figures").replaceChildren();
  byId("batch-state").textContent = "";
  byId("chart-figure").hidden = true;
  for (const id of ["pause", "resume", "cancel"]) byId(id).hidden = true;
  watch(batch);
}

// What the list says of the batch that is shown: uploaded again, it is followed again.
export function listed(batches) {
  if (!shown) return;
  if (shown.ended && batches.some((batch) => batch.batch === shown.name && underWay(batch))) watch(shown);
  fetchMissing();
}

function watch(batch) {
  batch.ended = false;
  const lost = (words) => {
    if (words && shown === batch) byId("batch-state").textContent = words;
  };
  attempt(async () => {
    await follow(`${batch.path}/events`, batch.stop.signal, (view) => shown === batch && show(view), lost);
    batch.ended = true;
  }, "events");
}

function show(view) {
  const words = `The batch is ${stateWords(view)}.`;
  if (byId("batch-state").textContent !== words) byId("batch-state").textContent = words;
  const bar = byId("batch-progress");
  bar.hidden = view.rows === null;
  bar.value = view.rows ? (view.rows - view.waiting - view.unresolved) / view.rows : 0;
  figures(view);
  chart(view.history);
  byId("pause").hidden = view.state !== "running";
  byId("resume").hidden = view.state !== "paused";
  byId("cancel").hidden = !["running", "paused"].includes(view.state);
  byId("awaiting").hidden = view.awaiting_pin === 0;
  for (const [list, known] of Object.entries(shown.lists)) {
    byId(list).hidden = view[list] === 0;
    known.counted = view[list];
  }
  fetchMissing();
}

function figures(view) {
  const all = [
    ["Rows", view.rows === null ? "–" : count(view.rows)],
    ["Issued", count(view.issued)],
    ["Refused", count(view.refused)],
    ["Unresolved", count(view.unresolved)],
    ...(view.awaiting_pin ? [["Waiting for a PIN", count(view.awaiting_pin)]] : []),
    ["Waiting", count(view.waiting)],
    ...(underWay(view) ? [["Rate", `${count(view.rate_per_second)}/s`]] : []),
    ...(view.eta_seconds === null ? [] : [["Time left", duration(view.eta_seconds)]]),
    ...(view.oldest_pin_age_seconds === null ? [] : [["Oldest PIN", duration(view.oldest_pin_age_seconds)]]),
    ...(view.known_before ? [["Card from another batch", count(view.known_before)]] : []),
    ...(view.recorded_before ? [["Done before", count(view.recorded_before)]] : []),
    ...(view.retried ? [["Repeated calls", count(view.retried)]] : []),
  ];
  byId("figures").replaceChildren(...all.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }));
    return pair;
  }));
}

// Ends over time as stacked bars.
function chart(history) {
  byId("chart-figure").hidden = !history || history.points.length < 2;
  if (byId("chart-figure").hidden) return;
  const { points, seconds_per_point: seconds } = history;
  const [width, height] = [600, 96];
  const highest = Math.max(1, ...points.map((point) => OUTCOMES.reduce((sum, name) => sum + point[name], 0)));
  const step = width / Math.max(points.length, 30);
  const bars = [];
  points.forEach((point, index) => {
    let top = height;
    for (const name of OUTCOMES.filter((outcome) => point[outcome] > 0)) {
      const tall = (point[name] / highest) * (height - 4);
      top -= tall;
      const bar = document.createElementNS(SVG, "rect");
      const box = { x: index * step, y: top, width: Math.max(step - 1, 1), height: tall, class: name };
      for (const [key, value] of Object.entries(box)) bar.setAttribute(key, value);
      bars.push(bar);
    }
  });
  byId("chart").replaceChildren(...bars);
  byId("chart-words").textContent = `Rows ended in each ${duration(seconds)}, at most ${count(highest)}:`;
}

// Fetches what is counted and not shown yet; what fails is tried again with the next refresh.
function fetchMissing() {
  for (const [list, { counted, fetched }] of Object.entries(shown.lists)) {
    if (counted > fetched && fetched < ROWS_AT_ONCE) attempt(() => fetchRows(list, false), "refresh");
  }
}

async function fetchRows(list, more) {
  const batch = shown;
  if (!batch) return;
  const known = batch.lists[list];
  const { counted } = known;
  const after = more && known.next ? `&after=${encodeURIComponent(known.next)}` : "";
  const { rows, next } = await get(`${batch.path}/rows?${LISTS[list].query}&limit=${ROWS_AT_ONCE}${after}`);
  if (shown !== batch) return;
  const lines = rows.map((row) => {
    const line = document.createElement("tr");
    const [what, why] = LISTS[list].cells(row);
    line.append(cell(String(row.row ?? ""), "number"), cell(row.row_id ?? ""), cell(what ?? ""), cell(why ?? ""));
    return line;
  });
  if (more) byId(`${list}-rows`).append(...lines);
  else byId(`${list}-rows`).replaceChildren(...lines);
  known.fetched = Math.max(known.fetched, counted);
  known.next = next;
  byId(`${list}-more`).hidden = !next;
}

function steer(action) {
  const batch = shown;
  return attempt(async () => {
    const view = await post(`${batch.path}/${action}`);
    if (shown === batch) show(view);
  });
}

function fetchResults(query, ending) {
  const { name, path } = shown;
  return attempt(async () => save(await download(`${path}/results.csv${query}`), `${name}.${ending}.csv`));
}

// A cell of a CSV, which no spreadsheet runs as a formula.
function csvCell(value) {
  const text = String(value ?? "");
  return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
}

// Rows that have a link already keep it, unless all of them do and new ones are wanted.
function fetchLinks() {
  const { name } = shown;
  return attempt(async () => {
    const make = async (more) => {
      const all = [];
      for (let after; after !== null;) {
        const { links, next } = await postJson("/v1/pin-links", { batch: name, after, ...more });
        all.push(...links);
        after = next;
      }
      return all;
    };
    let links = await make({});
    if (links.length === 0) {
      const words = "Every row has a link already. Make new ones for all of them? Links that were sent before can be used no more.";
      if (!(await sure(words, "Make new links"))) return;
      links = await make({ renew: true });
    }
    links.sort((one, other) => (one.row ?? 0) - (other.row ?? 0));
    const lines = links.map((link) => [link.row, link.row_id, link.job, link.pin_link, new Date(link.expires_ms).toISOString()]);
    const csv = [["row", "row_id", "job_id", "pin_link", "expires"], ...lines].map((line) => line.map(csvCell).join(",")).join("\r\n");
    save(new Blob([`${csv}\r\n`], { type: "text/csv" }), `${name}.pin-links.csv`);
  });
}

function cancelWaiting() {
  const { name } = shown;
  return attempt(async () => {
    const words = "Cancel the rows that wait for a PIN? They are refused, and links that were sent can be used no more.";
    if (await sure(words, "Cancel these rows")) await postJson("/v1/pin-links/cancel", { batch: name });
    if (shown?.name === name) show(await get(shown.path));
  });
}

byId("links-download").addEventListener("click", fetchLinks);
byId("awaiting-cancel").addEventListener("click", cancelWaiting);
byId("pause").addEventListener("click", () => steer("pause"));
byId("resume").addEventListener("click", () => steer("resume"));
byId("cancel").addEventListener("click", async () => {
  const words = "Cancel this batch? Rows that have not begun are refused. Cards that were issued stay.";
  if (await sure(words, "Cancel the batch")) steer("cancel");
});
byId("results").addEventListener("click", () => fetchResults("", "results"));
byId("refused-download").addEventListener("click", () => fetchResults("?outcome=refused", "refused"));
for (const list of Object.keys(LISTS)) {
  byId(`${list}-more`).addEventListener("click", () => attempt(() => fetchRows(list, true)));
}
