// One batch: its progress as it comes, what can be done with it, and its rows.

import { listed as csvOf, records } from "/page/csv.js";
import { byId, count, counted, duration, inLocalTime, make, save, say, show, sure, time, visible } from "/page/elements.js";
import { formOf } from "/page/columns.js";
import { download, follow, get, post, postJson, sendForm, trouble } from "/page/http.js";
import { setChosenRoles, startChosen } from "/page/chosen.js";
import { closeHeld, openHeld, setHeldRoles, showHeld, startHeld } from "/page/held.js";
import { closeHistory, openHistory, setHistoryRoles, showHistory } from "/page/history.js";
import { showRefusals } from "/page/refusals.js";
import { closeRows, openRows, refreshRows, showCounts, startRows } from "/page/rows.js";
import { closeSettling, openSettling, showSettling, startSettling } from "/page/settle.js";
import { advice, batchChip, leftOf, underWay } from "/page/states.js";

const SVG = "http://www.w3.org/2000/svg";
// Between two looks at rows of which something is being found out.
const LOOK_EVERY_MS = 5000;
const OUTCOMES = ["issued", "refused", "unresolved"];

// The batch that is shown; null if none is.
let shown = null;
let attempt = null;
// What takes a file that was chosen for this batch once more.
let again = null;
let may = () => true;
// What the server answered to the upload that was sent last here: all that somebody learns of it who may not look.
let sent = null;

export function setSent(view) {
  sent = view;
}

export function setRoles(can, name) {
  may = can;
  setHeldRoles(can, name);
  setHistoryRoles(can);
  setChosenRoles(can);
  if (shown?.view) showView(shown.view);
}

export function closeBatch() {
  shown?.stop.abort();
  shown = null;
  closeRows();
  closeHeld();
  closeHistory();
  closeSettling();
  byId("icon").href = "data:,";
}

export function openBatch(name) {
  closeBatch();
  const batch = { name, path: `/v1/batches/${encodeURIComponent(name)}`, stop: new AbortController(), ended: false, view: null };
  shown = batch;
  byId("batch-title").textContent = visible(name);
  byId("refused-again").href = `#/new?into=${encodeURIComponent(name)}`;
  byId("row-filters").replaceChildren();
  byId("figures").replaceChildren();
  byId("batch-chip").replaceChildren();
  byId("times").replaceChildren();
  byId("batch-state").textContent = "";
  for (const id of ["held", "again-panel", "history", "may-not-operate", "undo", "track", "track-said", "chart-figure", "awaiting", "mend-refused", "pause", "resume", "cancel", "refused-said"]) show(id, false);
  // What there is to see of it is shown once it is known that there is such a batch.
  for (const id of ["who", "results", "results-workbook", "batch-progress"]) show(id, false);
  if (!may("read")) return say("batch-state", `${sent?.batch === name ? taken(sent) : ""}To see how it stands takes a token with the role “read”.`);
  openRows(batch);
  openHeld(batch);
  openHistory(batch);
  openSettling(batch);
  watch(batch);
}

// That an upload was taken, and what it waits for.
function taken({ state, held }) {
  if (state === "awaiting_approval") return "It was taken, and waits until somebody else has approved it: nothing of it is issued before. ";
  if (state === "scheduled") return `It was taken, and begins by itself${held?.start_ms ? `, ${new Date(held.start_ms).toLocaleString()}` : " at its time"}. `;
  return "It was taken, and is being issued. ";
}

// What the list says of the batch that is shown: uploaded again, or ended otherwise since, it is followed again.
export function listed(batches) {
  if (shown?.ended && batches.some((batch) => batch.batch === shown.name && (underWay(batch) || batch.state !== shown.view?.state))) watch(shown);
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
  const done = view.rows ? (view.rows - leftOf(view)) / view.rows : 0;
  bar.hidden = view.rows === null || Boolean(view.held);
  for (const id of ["results", "results-workbook"]) show(id, !view.held && may("read"));
  bar.value = done;
  outside(view, done);
  figures(view);
  times(view);
  chart(view.history);
  show("pause", view.state === "running" && may("operate"));
  show("resume", view.state === "paused" && may("operate"));
  show("cancel", ["running", "paused", "awaiting_approval", "scheduled"].includes(view.state) && may("operate"));
  show("track", view.issued > 0 && !underWay(view) && !view.held && (may("submit") || may("operate")));
  show("undo", view.issued > 0 && !underWay(view) && !view.held && may("operate") && !shown.name.endsWith(".cancel"));
  show("may-not-operate", (underWay(view) || Boolean(view.held) || view.issued > 0) && !may("operate"));
  for (const id of ["mend-hint", "refused-file-choice", "refused-again"]) show(id, may("submit"));
  show("may-not-mend", !may("submit"));
  showHeld(view);
  showHistory(view);
  show("awaiting", view.awaiting_pin > 0 && may("operate"));
  show("mend-refused", view.refused > 0 && !underWay(view) && !view.held);
  showSettling(view.unresolved > 0 && !underWay(view) && !view.held && (may("submit") || may("operate")));
  show("settle-file-choice", may("submit"));
  // Jobs that were sent one by one or through a queue come again by themselves.
  show("settle", view.state !== "open");
  showRefusals(view, shown, attempt, may);
  showCounts(view);
}

// Where its physical cards are is asked of Stripe, slowly; what is known by then is in the rows.
function track() {
  const batch = shown;
  return attempt(async () => {
    const { reads, seconds } = await post(`${batch.path}/track`);
    if (shown !== batch) return;
    show("track-said", true);
    say("track-said", `Stripe is asked about ${counted(reads, "card")}, which takes about ${duration(seconds)}. The rows below say then where each is.`);
    // The server says when it has ended: Stripe may take its time.
    const look = () => attempt(async () => {
      const { tracking } = await get("/v1/server");
      if (shown !== batch) return;
      refreshRows();
      if (tracking) setTimeout(look, LOOK_EVERY_MS);
      else say("track-said", `Stripe was asked about ${counted(reads, "card")}. That has ended: the rows below say where each is.`);
    }, "track");
    setTimeout(look, Math.min(LOOK_EVERY_MS, 1000 * seconds + 500));
  });
}

// The cards that the batch made are cancelled, as a batch of their own: what that saves is told first.
function undo() {
  const batch = shown;
  return attempt(async () => {
    const path = `${batch.path}/cancel-cards`;
    const plan = await get(path);
    const left = plan.cards - plan.cancelled;
    if (left === 0) throw new Error("None of its cards is left to be cancelled.");
    const words = [`Cancel ${counted(left, "card")} of “${batch.name}”, for ever?`,
      // The question says that already.
      ...plan.notes.filter((note) => !note.endsWith("will be cancelled, for ever.")).map(inLocalTime)].join("\n\n");
    if (!(await sure(words, `Cancel ${counted(left, "card")}`))) return;
    const view = await post(`${path}?yes_cancel=${plan.cards}&until_ms=${plan.until_ms}`);
    location.hash = `#/batches/${encodeURIComponent(view.batch)}`;
  });
}

// The window's title and its icon say how far it is, for who looks at another tab.
function outside(view, done) {
  const ended = { finished: "✓ ", interrupted: "! " }[view.state] ?? "";
  const title = `${underWay(view) ? `${Math.floor(100 * done)} % · ` : ended}${visible(shown.name)} · embosser`;
  if (document.title !== title) document.title = title;
  const part = 100 * (underWay(view) ? done : 1);
  const colour = view.state === "interrupted" ? "%23b3261e" : "%233b43c4";
  byId("icon").href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 36 36'><circle cx='18' cy='18' r='15' fill='none' stroke='%23bbb' stroke-width='6'/><circle cx='18' cy='18' r='15' fill='none' stroke='${colour}' stroke-width='6' pathLength='100' stroke-dasharray='${part} 100' transform='rotate(-90 18 18)'/></svg>`;
}

function figures(view) {
  const all = [
    ["Rows", view.rows === null ? "–" : count(view.rows)],
    ["Done", count(view.issued)],
    ...(view.cancelled_cards ? [["Of these cancelled since", count(view.cancelled_cards)]] : []),
    // Rows that somebody cancelled are none that Stripe or embosser refused.
    ["Refused", count(view.refused - view.cancelled_rows)],
    ...(view.cancelled_rows ? [["Cancelled before they began", count(view.cancelled_rows)]] : []),
    ...(view.unresolved ? [["Not known yet", count(view.unresolved)]] : []),
    ...(view.awaiting_pin ? [["Waiting for a PIN", count(view.awaiting_pin)]] : []),
    // What has neither ended nor stands beside it here: all of these together are the rows.
    ["Left", count(view.waiting)],
    ...(view.state === "running" ? [["Rows a second", count(view.rate_per_second)]] : []),
    ...(view.eta_seconds === null ? [] : [["Time left", duration(view.eta_seconds)]]),
    ...(view.oldest_pin_age_seconds === null ? [] : [["Oldest PIN here for", duration(view.oldest_pin_age_seconds)]]),
    ...(view.known_before ? [["Card from another batch", count(view.known_before)]] : []),
    ...(view.recorded_before ? [["Ended before", count(view.recorded_before)]] : []),
    ...(view.retried ? [["Repeated calls", count(view.retried)]] : []),
  ];
  byId("figures").replaceChildren(...all.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function times(view) {
  const parts = [];
  if (view.began_ms !== null) parts.push(view.held ? "Came " : "Began ", time(view.began_ms), ". ");
  if (view.latest_ms !== null && !view.held) parts.push("Last heard of ", time(view.latest_ms), ".");
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
  // No number: rows end in bunches, and a bar may have more of them than calls are made in its time.
  say("chart-words", `Rows that ended over time; a bar is ${duration(seconds)}:`);
}

function steer(action, batch = shown) {
  return attempt(async () => {
    const view = await post(`${batch.path}/${action}`);
    if (shown === batch) showView(view);
  });
}

function fetchResults(query, word, type = "csv") {
  const { name, path } = shown;
  return attempt(async () => save(await download(`${path}/results.${type}${query}`), `${name}.${word}.${type}`));
}

// The rows that were refused, out of the file that they came from: the server finds them, and leaves the PINs out.
function fetchRefused(file) {
  const { name, path } = shown;
  return attempt(async () => {
    show("refused-said", true);
    say("refused-said", "Looking for the rows…");
    const answer = await sendForm(`${path}/refused-rows.csv`, formOf(name, file), new AbortController().signal, () => {});
    if (answer.status >= 300) {
      show("refused-said", false);
      throw trouble(answer.status, answer.text);
    }
    const rows = records(new TextEncoder().encode(answer.text), "utf-8", ",").length - 1;
    // The mark, by which Excel reads letters right, is gone from what was read as a text.
    save(new Blob(["\ufeff", answer.text], { type: "text/csv" }), `${name}.to-mend.csv`);
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
    save(csvOf([["Row", "Staff number", "Job", "Link", "Can be used until"], ...lines]), `${name}.pin-links.csv`);
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

export function startBatch(attempted, onAgain) {
  [attempt, again] = [attempted, onAgain];
  startRows(attempted);
  startChosen((file) => onAgain("", file, false));
  startSettling(attempted, (batch, view) => shown === batch && showView(view));
  startHeld(attempted, (batch, view) => {
    if (shown?.name !== batch.name) return;
    showView(view);
    if (shown.ended) watch(shown);
  });
  byId("links-download").addEventListener("click", fetchLinks);
  byId("awaiting-cancel").addEventListener("click", cancelWaiting);
  byId("pause").addEventListener("click", () => steer("pause"));
  byId("resume").addEventListener("click", () => steer("resume"));
  byId("track").addEventListener("click", track);
  byId("undo").addEventListener("click", undo);
  byId("cancel").addEventListener("click", async () => {
    const batch = shown;
    const left = batch.view?.waiting ?? 0;
    const words = `Cancel the ${count(left)} rows of “${shown.name}” that have not begun? Cards that were issued stay.`;
    if (await sure(words, "Cancel these rows")) steer("cancel", batch);
  });
  byId("results").addEventListener("click", () => fetchResults("", "results"));
  byId("results-workbook").addEventListener("click", () => fetchResults("", "results", "xlsx"));
  byId("refused-download").addEventListener("click", () => fetchResults("?outcome=refused", "refused"));
  for (const id of ["retry-file", "settle-file"]) {
    byId(id).addEventListener("change", ({ target }) => {
      const [file] = target.files;
      target.value = "";
      // Of rows that were refused only those that need no change: the others are asked for once they are mended.
      if (file && shown) again(shown.name, file, true);
    });
  }
  byId("refused-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) fetchRefused(file);
  });
}
