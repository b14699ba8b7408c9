// One batch: its progress as it comes, what can be done with it, and its rows.

import { listed as csvOf, records } from "/page/csv.js";
import { byId, count, duration, make, save, say, show, sure, time } from "/page/elements.js";
import { download, follow, get, post, postJson, sendForm, trouble } from "/page/http.js";
import { closeRows, openRows, showCounts, startRows } from "/page/rows.js";
import { advice, batchChip, underWay } from "/page/states.js";

const SVG = "http://www.w3.org/2000/svg";
const OUTCOMES = ["issued", "refused", "unresolved"];

// The batch that is shown; null if none is.
let shown = null;
let attempt = null;
let may = () => true;
let uploadInto = () => {};

export function setRoles(can) {
  may = can;
  if (shown?.view) showView(shown.view);
}

export function closeBatch() {
  shown?.stop.abort();
  shown = null;
  closeRows();
  byId("icon").href = "data:,";
}

export function openBatch(name) {
  closeBatch();
  const batch = { name, path: `/v1/batches/${encodeURIComponent(name)}`, stop: new AbortController(), ended: false, view: null };
  shown = batch;
  byId("batch-title").textContent = name;
  byId("figures").replaceChildren();
  byId("batch-chip").replaceChildren();
  byId("times").replaceChildren();
  byId("batch-state").textContent = "";
  for (const id of ["chart-figure", "awaiting", "mend-refused", "pause", "resume", "cancel", "refused-said"]) show(id, false);
  openRows(batch.path);
  watch(batch);
}

// What the list says of the batch that is shown: uploaded again, it is followed again.
export function listed(batches) {
  if (shown?.ended && batches.some((batch) => batch.batch === shown.name && underWay(batch))) watch(shown);
}

function watch(batch) {
  batch.ended = false;
  const lost = (words) => {
    if (words && shown === batch) say("batch-state", words);
  };
  attempt(async () => {
    await follow(`${batch.path}/events`, batch.stop.signal, (view) => shown === batch && showView(view), lost);
    batch.ended = true;
  }, "events");
}

function showView(view) {
  shown.view = view;
  const chip = batchChip(view);
  if (byId("batch-chip").textContent !== chip.textContent) byId("batch-chip").replaceChildren(chip);
  say("batch-state", advice(view));
  const bar = byId("batch-progress");
  const done = view.rows ? (view.rows - view.waiting - view.unresolved) / view.rows : 0;
  bar.hidden = view.rows === null;
  bar.value = done;
  outside(view, done);
  figures(view);
  times(view);
  chart(view.history);
  show("pause", view.state === "running" && may("operate"));
  show("resume", view.state === "paused" && may("operate"));
  show("cancel", ["running", "paused"].includes(view.state) && may("operate"));
  show("awaiting", view.awaiting_pin > 0 && may("operate"));
  show("mend-refused", view.refused > 0 && !underWay(view));
  showCounts(view);
}

// The window's title and its icon say how far it is, for who looks at another tab.
function outside(view, done) {
  const title = `${underWay(view) ? `${Math.floor(100 * done)} % · ` : ""}${shown.name} · embosser`;
  if (document.title !== title) document.title = title;
  const part = 100 * (underWay(view) ? done : 1);
  const colour = view.state === "interrupted" ? "%23b3261e" : "%233b43c4";
  byId("icon").href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 36 36'><circle cx='18' cy='18' r='15' fill='none' stroke='%23bbb' stroke-width='6'/><circle cx='18' cy='18' r='15' fill='none' stroke='${colour}' stroke-width='6' pathLength='100' stroke-dasharray='${part} 100' transform='rotate(-90 18 18)'/></svg>`;
}

function figures(view) {
  const all = [
    ["Rows", view.rows === null ? "–" : count(view.rows)],
    ["Done", count(view.issued)],
    ["Refused", count(view.refused)],
    ...(view.unresolved ? [["Not known yet", count(view.unresolved)]] : []),
    ...(view.awaiting_pin ? [["Waiting for a PIN", count(view.awaiting_pin)]] : []),
    ["Left", count(view.waiting)],
    ...(underWay(view) ? [["Rows a second", count(view.rate_per_second)]] : []),
    ...(view.eta_seconds === null ? [] : [["Time left", duration(view.eta_seconds)]]),
    ...(view.oldest_pin_age_seconds === null ? [] : [["Oldest PIN here for", duration(view.oldest_pin_age_seconds)]]),
    ...(view.known_before ? [["Card from another batch", count(view.known_before)]] : []),
    ...(view.recorded_before ? [["Done before", count(view.recorded_before)]] : []),
    ...(view.retried ? [["Repeated calls", count(view.retried)]] : []),
  ];
  byId("figures").replaceChildren(...all.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function times(view) {
  const parts = [];
  if (view.began_ms !== null) parts.push("Began ", time(view.began_ms), ". ");
  if (view.latest_ms !== null) parts.push("Last heard of ", time(view.latest_ms), ".");
  byId("times").replaceChildren(...parts);
}

// Ends over time as stacked bars.
function chart(history) {
  show("chart-figure", Boolean(history) && history.points.length >= 2);
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
  const most = count(highest / seconds);
  say("chart-words", `Rows that ended over time; a bar is ${duration(seconds)}, and the highest is ${most} a second:`);
}

function steer(action) {
  const batch = shown;
  return attempt(async () => {
    const view = await post(`${batch.path}/${action}`);
    if (shown === batch) showView(view);
  });
}

function fetchResults(query, ending) {
  const { name, path } = shown;
  return attempt(async () => save(await download(`${path}/results.csv${query}`), `${name}.${ending}.csv`));
}

// The rows that were refused, out of the file that they came from: the server finds them, and leaves the PINs out.
function fetchRefused(file) {
  const { name, path } = shown;
  return attempt(async () => {
    show("refused-said", true);
    say("refused-said", "Looking for the rows…");
    const data = new FormData();
    data.append("manifest", file, file.name);
    const answer = await sendForm(`${path}/refused-rows.csv`, data, new AbortController().signal, () => {});
    if (answer.status >= 300) {
      show("refused-said", false);
      throw trouble(answer.status, answer.text);
    }
    const rows = records(new TextEncoder().encode(answer.text), "utf-8", ",").length - 1;
    save(new Blob([answer.text], { type: "text/csv" }), `${name}.to-mend.csv`);
    say("refused-said", `${count(rows)} rows, each with its reason in the last column, which need not be taken out. Mend them, and upload the file into this batch.`);
  });
}

// Rows that have a link already keep it, unless all of them do and new ones are wanted.
function fetchLinks() {
  const { name } = shown;
  return attempt(async () => {
    const all = async (more) => {
      const found = [];
      for (let after; after !== null;) {
        const { links, next } = await postJson("/v1/pin-links", { batch: name, after, ...more });
        found.push(...links);
        after = next;
      }
      return found;
    };
    let links = await all({});
    if (links.length === 0) {
      const words = "Every row has a link already. Make new ones for all of them? Links that were sent before can be used no more.";
      if (!(await sure(words, "Make new links"))) return;
      links = await all({ renew: true });
    }
    links.sort((one, other) => (one.row ?? 0) - (other.row ?? 0));
    const lines = links.map((link) => [link.row, link.row_id, link.job, link.pin_link, new Date(link.expires_ms).toISOString()]);
    save(csvOf([["row", "row_id", "job_id", "pin_link", "expires"], ...lines]), `${name}.pin-links.csv`);
  });
}

function cancelWaiting() {
  const { name } = shown;
  return attempt(async () => {
    const words = "Cancel the rows that wait for a PIN? They are refused, and links that were sent can be used no more.";
    if (await sure(words, "Cancel these rows")) await postJson("/v1/pin-links/cancel", { batch: name });
    if (shown?.name === name) showView(await get(shown.path));
  });
}

export function startBatch(attempted, into) {
  [attempt, uploadInto] = [attempted, into];
  startRows(attempted);
  byId("links-download").addEventListener("click", fetchLinks);
  byId("awaiting-cancel").addEventListener("click", cancelWaiting);
  byId("pause").addEventListener("click", () => steer("pause"));
  byId("resume").addEventListener("click", () => steer("resume"));
  byId("cancel").addEventListener("click", async () => {
    const left = shown.view?.waiting ?? 0;
    const words = `Cancel the ${count(left)} rows of “${shown.name}” that have not begun? Cards that were issued stay.`;
    if (await sure(words, "Cancel these rows")) steer("cancel");
  });
  byId("results").addEventListener("click", () => fetchResults("", "results"));
  byId("refused-download").addEventListener("click", () => fetchResults("?outcome=refused", "refused"));
  byId("refused-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) fetchRefused(file);
  });
  byId("refused-again").addEventListener("click", () => uploadInto(shown.name));
}
