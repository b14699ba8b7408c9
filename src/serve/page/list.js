// The list of batches: the latest first, more of them, and those that are searched for.

import { byId, cell, count, fill, make, say, show, time } from "/page/elements.js";
import { batchChip, leftOf } from "/page/states.js";

const AT_ONCE = 100;
// What the server gives at most.
const MOST = 1000;
// A list that is seen as a whole needs no search.
const SEARCHED_FROM = 10;
const SEARCH_AFTER_MS = 250;

let shown = AT_ONCE;

export function startList(refresh) {
  let timer;
  byId("list-search").addEventListener("input", () => {
    shown = AT_ONCE;
    clearTimeout(timer);
    timer = setTimeout(refresh, SEARCH_AFTER_MS);
  });
  byId("list-show-more").addEventListener("click", () => {
    shown = Math.min(shown + AT_ONCE, MOST);
    refresh();
  });
}

function searched() {
  return byId("list-search").value.trim();
}

// What is asked of the server: what somebody looks for is looked for where they see it.
export function listAddress(isSeen) {
  const query = new URLSearchParams({ limit: isSeen ? shown : AT_ONCE });
  if (isSeen && searched()) query.set("q", searched());
  return `/v1/batches?${query}`;
}

export function showList({ batches, total }) {
  const isSearched = Boolean(searched());
  const isEmpty = total === 0 && !isSearched;
  show("list-none", isEmpty);
  show("list-some", !isEmpty);
  show("list-searching", isSearched || total > SEARCHED_FROM);
  show("list-table", batches.length > 0);
  say("list-found", isSearched && total === 0 ? `No batch has “${searched()}” in its name.` : "");
  show("list-more", total > batches.length);
  say("list-more", `The ${count(batches.length)} batches last heard of, of ${count(total)}.${batches.length >= MOST ? " Search for the others by name." : ""}`);
  show("list-show-more", total > batches.length && batches.length < MOST);
  // Rows are changed in place, so that a focused link stays focused.
  fill(byId("list-table").tBodies[0], batches, (batch) => batch.batch, (row, batch) => {
    if (row.cells.length === 0) {
      row.append(make("th", { scope: "row", data: { label: "Batch" } }, make("a", { href: address(batch.batch) }, batch.batch)),
        cell("", "State"), ...["Rows", "Done", "Refused", "Left"].map((label) => cell("", label, "number")), cell("", "Last heard of"));
    }
    const left = batch.rows === null ? "–" : count(leftOf(batch));
    const rows = batch.rows === null ? "–" : count(batch.rows);
    const contents = [batchChip(batch), rows, count(batch.issued), refusedOf(batch), left, batch.latest_ms === null ? "" : time(batch.latest_ms)];
    contents.forEach((content, index) => {
      const words = content.textContent ?? content;
      if (row.cells[index + 1].textContent !== words) row.cells[index + 1].replaceChildren(content);
    });
  });
}

// Rows that somebody cancelled are none that were refused: they stand beside them.
function refusedOf({ refused, cancelled_rows: cancelled }) {
  return cancelled > 0 ? `${refused > cancelled ? `${count(refused - cancelled)}, and ` : ""}${count(cancelled)} cancelled` : count(refused);
}

export function address(batch) {
  return `#/batches/${encodeURIComponent(batch)}`;
}
