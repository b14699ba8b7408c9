// Who has what: a batch's rows, page by page, by how they ended and by what is looked for.

import { byId, cell, count, make, show, tabs } from "/page/elements.js";
import { get } from "/page/http.js";
import { rowChip, underWay } from "/page/states.js";

const ROWS_AT_ONCE = 50;
const SEARCH_AFTER_MS = 250;

let shown = null;
let attempt = null;

export function startRows(attempted) {
  attempt = attempted;
  let timer;
  byId("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => choose({ search: byId("search").value }), SEARCH_AFTER_MS);
  });
  byId("rows-more").addEventListener("click", () => attempt(() => fetchRows(true)));
}

export function openRows(path) {
  shown = { path, group: "all", search: "", view: null, next: null, pages: 0, seen: "" };
  byId("search").value = "";
  byId("rows-table").tBodies[0].replaceChildren();
  show("rows-more", false);
  show("rows-none", false);
}

export function closeRows() {
  shown = null;
}

// What the counts say now: rows that ended since are fetched.
export function showCounts(view) {
  if (!shown) return;
  shown.view = view;
  const groups = [
    ["all", "All", view.issued + view.refused + view.unresolved + view.awaiting_pin],
    ["issued", "Done", view.issued],
    ["refused", "Refused", view.refused],
    ["unresolved", "Not known yet", view.unresolved],
    ["awaiting_pin", "Waiting for a PIN", view.awaiting_pin],
    ["noted", "With a note", view.noted],
  ];
  tabs("row-filters", groups.filter(([name, , number]) => number > 0 || ["all", shown.group].includes(name))
    .map(([name, words, number]) => [name, `${words} (${count(number)})`]), shown.group, (group) => choose({ group }));
  const seen = groups.filter(([name]) => shown.group === "all" || name === shown.group).map(([, , number]) => number).join();
  if (seen === shown.seen) return;
  // A list that its reader went on in is not taken away from under it.
  if (shown.pages > 1) return;
  shown.seen = seen;
  attempt(() => fetchRows(false), "refresh");
}

// Something was learnt of the rows that no count tells.
export function refreshRows() {
  if (shown) attempt(() => fetchRows(false), "refresh");
}

function choose(change) {
  Object.assign(shown, change, { next: null, pages: 0, seen: "" });
  if (shown.view) showCounts(shown.view);
}

async function fetchRows(more) {
  const list = shown;
  if (!list) return;
  const query = new URLSearchParams({ limit: ROWS_AT_ONCE });
  if (list.group === "noted") query.set("noted", "true");
  else if (list.group !== "all") query.set("outcome", list.group);
  if (list.search.trim()) query.set("q", list.search.trim());
  if (more && list.next) query.set("after", list.next);
  const number = (list.number = (list.number ?? 0) + 1);
  const { rows, next } = await get(`${list.path}/rows?${query}`);
  if (shown !== list || number !== list.number) return;
  list.next = next;
  list.pages = more ? list.pages + 1 : 1;
  const isUnderWay = underWay(list.view);
  const lines = rows.map((row) => lineOf(row, isUnderWay));
  const body = byId("rows-table").tBodies[0];
  if (more) body.append(...lines);
  else body.replaceChildren(...lines);
  show("rows-table", body.rows.length > 0);
  show("rows-more", Boolean(next));
  show("rows-none", body.rows.length === 0);
  byId("rows-none").textContent = list.search.trim() ? `Nothing has “${list.search.trim()}” in its name, card, cardholder or last digits.` : "No row has ended yet.";
}

// Where a card is on its way. A link is followed only where the server says that it is one.
function shippingOf({ shipping_status: status, tracking_number: number, tracking_url: url, eta }) {
  const parcel = url && number ? make("a", { href: url, rel: "noreferrer", target: "_blank" }, number) : number ?? "";
  const day = eta ? new Date(eta).toLocaleDateString() : "";
  return make("span", { className: "hint" }, `${status.replaceAll("_", " ")}${day ? `, about ${day}` : ""} `, parcel);
}

function lineOf(row, isUnderWay) {
  // While its batch goes on, what has begun is simply not done yet.
  const isBegun = isUnderWay && row.outcome === "unresolved";
  const card = row.card_id ?? row.cardholder_id;
  const facts = card ? make("span", {}, make("span", { title: card }, row.last4 ? `•••• ${row.last4}` : card),
    row.expiry ? ` until ${row.expiry}` : "", row.last4 ? make("span", { className: "hint" }, ` ${card}`) : "") : "";
  if (facts && row.shipping_status) facts.append(make("br"), shippingOf(row));
  const known = isBegun ? "" : [row.message, row.note].filter(Boolean).join(" — ");
  const code = row.code && !isBegun && !["cancelled", "awaiting_pin"].includes(row.code) ? make("span", { className: "hint" }, ` ${row.code}`) : "";
  return make("tr", {},
    cell(String(row.row ?? ""), "Row", "number"),
    make("th", { scope: "row", data: { label: "Name of the row" } }, row.row_id ?? row.job),
    cell(rowChip(row, isBegun), "State"), cell(facts, "Card"), cell(known || code ? make("span", {}, known, code) : "", "What to know"));
}
