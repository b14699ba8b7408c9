// Who has what: a batch's rows, page by page, by how they ended and by what is looked for.

import { boxOf, openChosen } from "/page/chosen.js";
import { byId, cell, count, counted, make, say, show, tabs } from "/page/elements.js";
import { formOf, sentenceInWords } from "/page/columns.js";
import { get, sendForm, trouble } from "/page/http.js";
import { exactly, reasonAsSentence } from "/page/reasons.js";
import { rowChip, underWay } from "/page/states.js";

const ROWS_AT_ONCE = 50;
const SEARCH_AFTER_MS = 250;
// People of one search: of more it is told that they are more.
const FOUND_MAX = 20;
// How rows end that have what they ask for.
const HAVE_IT = ["issued", "updated", "created"];
// What the server gives at once.
const ROWS_OF_A_PAGE_MAX = 1000;

let shown = null;
let attempt = null;

export function startRows(attempted) {
  attempt = attempted;
  let timer;
  byId("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => choose({ search: byId("search").value }), SEARCH_AFTER_MS);
  });
  byId("names-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) fetchNames(file);
  });
  byId("rows-more").addEventListener("click", () => attempt(() => fetchRows(true)));
}

export function openRows({ name, path }) {
  shown = { name, path, names: null, places: new Map(), lines: { ofNames: new Map(), ofPlaces: new Map() }, without: [], file: null, namedAt: "", group: "all", search: "", view: null, next: null, pages: 0, seen: "" };
  byId("search").value = "";
  openChosen(name);
  say("names-said", "");
  say("rows-caption", "Row 1 is the first below the headings of the file with which a row ended.");
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
  // What most batches come to stands from the beginning, so that no other group moves under the hand that presses it.
  const always = ["all", shown.group, ...(underWay(view) ? ["issued", "refused"] : [])];
  const groups = [
    ["all", view.waiting > 0 ? "All so far" : "All", view.issued + view.refused + view.unresolved + view.awaiting_pin],
    // Known by the file alone: also people whose rows were left out.
    ["without", "Not done here", shown.without.length],
    ["issued", "Done", view.issued],
    ["refused", view.cancelled_rows > 0 ? "Refused or cancelled" : "Refused", view.refused],
    ["unresolved", "Not known yet", view.unresolved],
    ["awaiting_pin", "Waiting for a PIN", view.awaiting_pin],
    ["noted", "With a note", view.noted],
  ];
  tabs("row-filters", groups.filter(([name, , number]) => number > 0 || always.includes(name))
    .map(([name, words, number]) => [name, `${words} (${count(number)})`]), shown.group, (group) => choose({ group }));
  const numbers = groups.filter(([name]) => shown.group === "all" || name === shown.group).map(([, , number]) => number);
  const seen = [...numbers, view.cancelled_cards].join();
  // What became of the file's rows is asked anew once more of them have ended.
  if (shown.file && !underWay(view) && view.state !== "open" && shown.namedAt !== endsOf(view)) fetchNames(shown.file, true);
  if (seen === shown.seen) return;
  // A list that its reader went on in is not taken away from under it.
  if (shown.pages > 1) return;
  shown.seen = seen;
  attempt(() => fetchRows(false), "refresh");
}

function endsOf({ issued, refused, unresolved, awaiting_pin: awaiting }) {
  return [issued, refused, unresolved, awaiting].join();
}

// Something was learnt of the rows that no count tells.
export function refreshRows() {
  if (shown) attempt(() => fetchRows(false), "refresh");
}

// Names stand in the file alone: the server reads them and keeps none, and this page has them until it is left. `again`: nobody asked.
function fetchNames(file, again = false) {
  const list = shown;
  [list.file, list.namedAt] = [file, endsOf(list.view)];
  const asked = (list.asked = (list.asked ?? 0) + 1);
  return attempt(async () => {
    const answer = await sendForm(`${list.path}/names`, formOf(list.name, file), new AbortController().signal, () => {}).catch((error) => {
      if (!again) throw error;
      return { status: 0 };
    });
    if (shown !== list || asked !== list.asked) return;
    if (again && answer.status !== 200 && answer.status !== 401) {
      list.file = null;
      return say("names-said", `Choose ${file.name} again to see what became of its rows since.`);
    }
    if (answer.status >= 300) throw trouble(answer.status, answer.text);
    takeNames(list, file, JSON.parse(answer.text));
    choose({ group: list.group === "without" && list.without.length === 0 ? "all" : list.group });
  });
}

function takeNames(list, file, { names, ambiguous, is_the_file: isTheFile, is_known: isKnown }) {
  list.names = new Map(names.filter(({ row_id: id }) => id).map(({ row_id: id, person }) => [id, person]));
  // A row's number tells something in the very file alone: in another, or one that was sorted since, somebody else stands there.
  list.places = new Map(isTheFile ? names.filter(({ row_id: id }) => !id).map(({ row, person }) => [row, person]) : []);
  list.lines = {
    ofNames: new Map(names.filter(({ row_id: id }) => id).map(({ row_id: id, line }) => [id, line])),
    ofPlaces: new Map(isTheFile ? names.map(({ row, line }) => [row, line]) : []),
  };
  say("rows-caption", `Lines are those of ${file.name}, counted as your spreadsheet counts them. Row 1 is the first below the headings.`);
  // A row without a name of its own has ended in this batch or not only if this is its file.
  const isTold = ({ row_id: id }) => isKnown && (id || isTheFile);
  list.without = names.filter((row) => isTold(row) && !HAVE_IT.includes(row.outcome));
  const shownNames = list.names.size + list.places.size;
  const twice = ambiguous.length === 0 ? "" : ` ${ambiguous.slice(0, 5).join(", ")}${ambiguous.length > 5 ? " and others stand" : ambiguous.length > 1 ? " stand" : " stands"} in it more than once, so nobody is named there: whose card it is cannot be told from this file.`;
  say("names-said", shownNames > 0 || names.length === 0
    ? `${counted(shownNames, "name")} from ${file.name}, on this page only. Search by name, too.${twice}`
    : `It is not certain that ${file.name} is the very file that this batch was made from, and it has no staff numbers: whose card is whose cannot be told from it for sure, so no names are shown.`);
}

function nameOf(row) {
  return row.row_id ? shown.names?.get(row.row_id) : shown.places?.get(row.row);
}

// Where a row stands: by its line, as its check said it, in a file that was chosen here; else by its number.
function placeOf({ row, line, row_id: id }) {
  const { ofNames, ofPlaces } = shown.lines;
  const found = line ?? (id ? ofNames.get(id) : ofPlaces.get(row));
  return found ? `line ${found}` : String(row ?? "");
}

function choose(change) {
  Object.assign(shown, change, { next: null, pages: 0, seen: "" });
  if (shown.view) showCounts(shown.view);
}

async function fetchRows(more) {
  const list = shown;
  if (!list) return;
  const query = new URLSearchParams({ limit: ROWS_AT_ONCE });
  if (list.group === "without") return showWithout(list, more);
  if (list.group === "noted") query.set("noted", "true");
  else if (list.group !== "all") query.set("outcome", list.group);
  if (list.search.trim()) query.set("q", list.search.trim());
  if (more && list.next) query.set("after", list.next);
  const number = (list.number = (list.number ?? 0) + 1);
  const { rows, next } = await (byName(list, query) ?? get(`${list.path}/rows?${query}`));
  if (shown !== list || number !== list.number) return;
  showRows(list, rows, next, more);
}

// Who has nothing yet, by the file: as it was when the file was read.
function showWithout(list, more) {
  list.number = (list.number ?? 0) + 1;
  say("rows-found", "");
  const wanted = list.search.trim().toLowerCase();
  const found = list.without.filter(({ person, row_id: id }) => [person, id ?? ""].some((text) => text.toLowerCase().includes(wanted)));
  const begin = more ? list.next : 0;
  const end = begin + ROWS_AT_ONCE;
  showRows(list, found.slice(begin, end), end < found.length ? end : null, more);
}

function showRows(list, rows, next, more) {
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

// The rows of people whose names have what is searched for; nothing if nobody's has.
function byName(list, query) {
  const wanted = list.search.trim().toLowerCase();
  say("rows-found", "");
  if (!wanted || !list.names) return null;
  const isMeant = ([, person]) => person.toLowerCase().includes(wanted);
  const [ids, places] = [[...list.names].filter(isMeant), [...list.places].filter(isMeant)];
  const all = ids.length + places.length;
  if (all === 0) return null;
  say("rows-found", all > FOUND_MAX ? `The first ${FOUND_MAX} of ${count(all)} people with “${list.search.trim()}” in their names.` : "");
  const numbers = places.map(([number]) => number).slice(0, Math.max(FOUND_MAX - ids.length, 0));
  // Of whom the batch knows nothing, there is nothing to be asked.
  const unknown = list.group === "all" ? list.without.filter(({ outcome, person }) => outcome === null && isMeant([null, person])) : [];
  return Promise.all([...ids.slice(0, FOUND_MAX).map(([id]) => withId(list, query, id)), withNumbers(list, query, numbers)])
    .then((rows) => ({ rows: [...rows.flat(), ...unknown.slice(0, FOUND_MAX)], next: null }));
}

async function withId(list, query, id) {
  const of = new URLSearchParams(query);
  of.delete("after");
  of.set("q", id);
  const { rows } = await get(`${list.path}/rows?${of}`);
  return rows.filter((row) => row.row_id === id);
}

// Rows without a name are found by their numbers, page by page.
async function withNumbers(list, query, numbers) {
  const wanted = numbers.sort((one, other) => one - other);
  const of = new URLSearchParams(query);
  of.delete("q");
  of.set("limit", ROWS_OF_A_PAGE_MAX);
  const found = [];
  for (let after = ""; after !== null && found.length < wanted.length && shown === list;) {
    if (after) of.set("after", after);
    else of.delete("after");
    const { rows, next } = await get(`${list.path}/rows?${of}`);
    found.push(...rows.filter((row) => !row.row_id && wanted.includes(row.row)));
    after = (rows.at(-1)?.row ?? 0) < wanted.at(-1) ? next : null;
  }
  return found;
}

// Stripe's words for how far a parcel has come.
const PARCELS = {
  pending: "not sent yet", submitted: "being printed", shipped: "on its way", delivered: "arrived", returned: "came back",
  failure: "could not be delivered", canceled: "cancelled",
};

// Where a card is on its way. A link is followed only where the server says that it is one.
function shippingOf({ shipping_status: status, tracking_number: number, tracking_url: url, eta }) {
  const parcel = url && number ? make("a", { href: url, rel: "noreferrer", target: "_blank" }, number) : number ?? "";
  const day = eta ? new Date(eta).toLocaleDateString() : "";
  return make("span", { className: "hint" }, `${PARCELS[status] ?? status.replaceAll("_", " ")}${day ? `, about ${day}` : ""} `, parcel);
}

// Why a batch may know nothing of a row of its file.
function whyUnknown() {
  const { state, waiting, known_before: known } = shown.view;
  if (underWay(shown.view)) return "It has not begun.";
  const reasons = [waiting > 0 || state !== "finished" ? "it has not begun" : "", "it was left out when the file was sent", "it came into the file later",
    known === 0 ? "" : "it has its card from another batch"].filter(Boolean);
  return `This batch knows nothing of it: ${reasons.slice(0, -1).join(", ")} or ${reasons.at(-1)}.`;
}

function lineOf(row, isUnderWay) {
  // While its batch goes on, what has begun is simply not done yet.
  const isBegun = isUnderWay && row.outcome === "unresolved";
  const person = nameOf(row);
  const card = row.card_id ?? row.cardholder_id;
  const facts = card ? make("span", {}, make("span", { title: card }, row.last4 ? `•••• ${row.last4}` : card),
    row.expiry ? ` until ${row.expiry}` : "", row.last4 ? make("span", { className: "hint" }, ` ${card}`) : "") : "";
  if (facts && row.shipping_status) facts.append(make("br"), shippingOf(row));
  const cancelled = row.cancelled_by && `cancelled by ${row.cancelled_by}`;
  const unknown = row.outcome === null && whyUnknown();
  const known = isBegun ? "" : [reasonAsSentence(row.code, row.message), sentenceInWords([row.note, cancelled, unknown].filter(Boolean).join(" — "))].filter(Boolean).join(" — ");
  return make("tr", {},
    cell(placeOf(row), "Row", "number"),
    make("th", { scope: "row", data: { label: "Who" } }, make("div", {}, boxOf(row, person ?? row.row_id ?? row.job), person ?? row.row_id ?? row.job, person && row.row_id ? make("span", { className: "hint" }, ` ${row.row_id}`) : "")),
    cell(rowChip(row, isBegun), "State"), cell(facts, "Card"), cell(known ? make("span", { title: exactly(row.code, row.message) }, known) : "", "What to know"));
}
