// The rows of a file in which something was found, as a table in which they are mended.

import { ORDERS, canShipToOwn, inWords, isColumn } from "/page/columns.js";
import { byId, count, counted, make, say, show, tabs, visible } from "/page/elements.js";
import { exactly, reasonInWords } from "/page/reasons.js";

const ROWS_AT_ONCE = 50;
// What a parcel's address has at least.
const ADDRESS = ["shipping[name]", "shipping[address][line1]", "shipping[address][postal_code]", "shipping[address][city]", "shipping[address][country]"];

// Columns whose words are a sentence.
const SHORT = { row_id: "Staff number", cardholder: "Cardholder", card: "Card" };

// While the table is made anew, a cell that is left is not left by its reader.
let isMadeAnew = false;

// Shows what was found. `draft` has the table, the rows seen so far, the edits and the report; `act` changes it.
export function showMending(draft, act) {
  const found = byPlace(draft);
  const lines = (wanted) => [...found].filter(([, { all }]) => all.some(wanted)).map(([line]) => line);
  const isProblem = ({ severity }) => severity === "problem";
  const edited = [...draft.edits.values()].map(({ line }) => line);
  const groups = {
    problems: [...new Set([...lines(isProblem), ...edited])],
    warnings: lines((one) => !isProblem(one)),
    all: [...draft.rows.keys()],
  };
  if (!draft.filter || (groups[draft.filter].length === 0 && draft.filter !== "all")) {
    draft.filter = ["problems", "warnings", "all"].find((name) => groups[name].length > 0) ?? "all";
  }
  // Of what is cut off the first is here, and how many rows it stands in is not known.
  const number = (lines, isCut) => (isCut ? `at least ${count(lines.length)}` : count(lines.length));
  tabs("filters", [
    ["problems", `To mend or mended (${number(groups.problems, cutOff(draft).problems)})`],
    ["warnings", `To look at (${number(groups.warnings, cutOff(draft).warnings)})`],
    ["all", "First rows"],
  ], draft.filter, (filter) => act.filter(filter));
  // A row that somebody writes in stays where it is, whatever becomes of it meanwhile.
  const shown = [...new Set([...groups[draft.filter], ...draft.open])].filter((line) => draft.rows.has(line) || found.has(line)).sort((one, other) => one - other);
  const inView = shown.slice(0, draft.visible);
  show("mend-more", shown.length > inView.length);
  byId("mend-more").onclick = () => act.more(ROWS_AT_ONCE);
  const columns = columnsShown(draft, found, inView);
  const active = document.activeElement;
  const wasInside = byId("mend-table").contains(active);
  const focused = wasInside ? active.dataset.place ?? active.closest("td")?.querySelector("[data-place]")?.dataset.place : null;
  // What somebody is about to type stays, though the answer to what they typed before has come meanwhile.
  const typed = focused && active.matches("input") ? { value: active.value, at: active.selectionStart } : null;
  const table = byId("mend-table");
  isMadeAnew = true;
  table.tHead.replaceChildren(make("tr", {}, make("th", { scope: "col" }, "Line"),
    ...columns.map((at) => make("th", { scope: "col", title: headingOf(draft, at) }, shortly(headingOf(draft, at))))));
  table.tBodies[0].replaceChildren(...inView.flatMap((line) => (draft.rows.has(line) ? rowOf(draft, act, line, found.get(line), columns) : [unreadable(line, found.get(line), columns)])));
  isMadeAnew = false;
  // Who mends by keyboard goes on where they were, or at the next that is to be mended.
  const same = focused && table.querySelector(`input[data-place="${focused}"]`);
  if (same && typed) {
    same.value = typed.value;
    same.setSelectionRange(typed.at, typed.at);
  }
  if (wasInside) (same ?? table.querySelector("[aria-invalid]") ?? byId("check-title")).focus();
  const words = Object.values(draft.values).flatMap((pairs) => Object.entries(pairs));
  show("edits-tools", draft.edits.size > 0 || words.length > 0);
  say("edits-count", [`${counted(draft.edits.size, "cell")} mended here.`, ...words.map(([word, value]) => `“${word}” is ${value}.`)].join(" "));
}

// A heading as the file has it; one that was added here, in words.
function headingOf(draft, at) {
  const { heading } = draft.table.headings[at] ?? {};
  return draft.added.includes(heading) ? inWords(heading) : heading || `Column ${at + 1}`;
}

// A heading in a few words: those of Stripe's names are long.
function shortly(heading) {
  return SHORT[heading] ?? inWords(heading);
}

// What was found, by lines: of each the whole row's, and each column's.
function byPlace(draft) {
  const places = new Map(draft.table.headings.map(({ heading }, at) => [heading, at]));
  // Where the file has the column under another name, the problem may say Stripe's.
  draft.table.headings.forEach(({ column }, at) => column && !places.has(column) && places.set(column, at));
  const found = new Map();
  for (const problem of draft.found.filter(({ row }) => row > 0)) {
    const line = found.get(problem.line) ?? { all: [], row: [], cells: new Map() };
    found.set(problem.line, line);
    line.all.push(problem);
    const numbered = /^number (\d+)$/.exec(problem.column);
    const at = numbered ? Number(numbered[1]) - 1 : places.get(problem.column);
    if (at === undefined) line.row.push(problem);
    else line.cells.set(at, [...(line.cells.get(at) ?? []), problem]);
  }
  return found;
}

// The columns that tell whose row it is, and those in which something was found or mended; all of them if that is wanted.
function columnsShown(draft, found, lines) {
  const { headings } = draft.table;
  if (draft.allColumns) return headings.map((_, at) => at);
  const wanted = new Set();
  headings.forEach(({ column }, at) => ["row_id", "card", "cardholder", "cardholder[name]", "shipping[name]"].includes(column) && wanted.add(at));
  for (const line of lines) if (draft.rows.has(line)) found.get(line)?.cells.forEach((_, at) => wanted.add(at));
  for (const { column } of draft.edits.values()) wanted.add(column - 1);
  headings.forEach(({ column }, at) => draft.asked.has(column) && wanted.add(at));
  if (wanted.size === 0) headings.slice(0, 8).forEach((_, at) => wanted.add(at));
  return [...wanted].sort((one, other) => one - other);
}

// A row whose cells cannot be told from each other: it is mended in the file.
function unreadable(line, { all }, columns) {
  const said = all.map((problem) => saying(problem, sentence(problem)));
  return make("tr", {}, make("th", { scope: "row", data: { label: "Line" } }, String(line)),
    make("td", { className: "bad", colSpan: Math.max(columns.length, 1), data: { label: "The row" } }, make("div", {}, ...said, make("p", { className: "said" }, "Mend it in your spreadsheet, and choose the file again."))));
}

function rowOf(draft, act, line, found, columns) {
  const cells = draft.rows.get(line);
  const isOpen = draft.open.has(line);
  const edit = make("button", { type: "button", className: "quiet", aria: { label: `Edit line ${line}` }, on: { click: () => act.open(line) } }, "Edit");
  const first = make("th", { scope: "row", data: { label: "Line" } }, make("div", {}, String(line),
    isOpen || draft.tooLarge ? null : make("div", { className: "row-tools" }, edit)));
  const row = make("tr", {}, first, ...columns.map((at) => cellOf(draft, act, { line, at, text: cells[at] }, found?.cells.get(at) ?? [], isOpen)));
  const whole = found?.row ?? [];
  if (whole.length === 0) return [row];
  // What is about no cell of it stands below it, as wide as it is.
  const said = whole.map((problem) => saying(problem, about(problem), sentence(problem), adding(draft, act, line, problem)));
  const name = whole.some(({ severity }) => severity === "problem") ? "bad" : "warn";
  return [row, make("tr", { className: "whole" }, make("td", { className: name, colSpan: columns.length + 1, data: { label: `Line ${line}` } }, make("div", {}, ...said)))];
}

function cellOf(draft, act, place, problems, isOpen) {
  const { line, at, text } = place;
  const heading = headingOf(draft, at);
  const data = { label: shortly(heading) };
  if (text === null) {
    const said = problems.map((problem) => saying(problem, sentence(problem)));
    return make("td", { className: problems.length ? "bad" : "", data }, make("div", {}, make("span", { className: "hint" }, "not shown"), ...said));
  }
  const edit = draft.edits.get(`${line}:${at + 1}`);
  const isBad = problems.some(({ severity }) => severity === "problem");
  const name = isBad ? "bad" : problems.length ? "warn" : "";
  if (problems.length === 0 && !edit && !isOpen) return make("td", { data }, text ?? "");
  // Letters that turn the others round are seen here, too; who changes nothing changes none of them.
  const isNews = () => !isMadeAnew && input.value !== visible(draft.rows.get(line)?.[at] ?? "");
  const commit = () => isNews() && act.edit(line, at, input.value);
  const input = make("input", {
    value: visible(text ?? ""), className: edit ? "changed" : "", autocomplete: "off", spellcheck: false,
    data: { place: `${line}:${at}` },
    aria: { label: `${shortly(heading)} of line ${line}`, ...(isBad ? { invalid: "true" } : {}) },
    on: { change: commit, blur: commit, keydown: ({ key }) => key === "Enter" && commit() },
  });
  if (problems.length) input.setAttribute("aria-describedby", `said-${line}-${at}`);
  const said = make("div", { id: `said-${line}-${at}` }, ...problems.map((problem) => saying(problem, sentence(problem), ...ways(draft, act, place, problem))));
  const mended = edit && problems.length === 0 ? make("p", { className: "said state good" }, make("i", { aria: { hidden: "true" } }, "✓"), "mended") : null;
  return make("td", { className: name, data }, make("div", {}, input, problems.length ? said : null, mended));
}

// Of which column a problem of the row as a whole is.
function about({ column }) {
  const words = column ? inWords(column) : "";
  // Headings that are read together stand there as the file has them.
  return words && (words !== column || words.includes(" + ")) ? `${words}: ` : "";
}

// What the file has no column for is typed in here, for this row.
function adding(draft, act, line, { column }) {
  const isThere = draft.table.headings.some(({ column: other }) => other === column);
  if (draft.tooLarge || isThere || !isColumn(column)) return null;
  return make("button", { type: "button", on: { click: () => act.add(line, [column]) } }, `Type in “${inWords(column)}”`);
}

function saying({ code, reason }, ...words) {
  return make("p", { className: "said", title: exactly(code, reason) }, ...words);
}

function sentence({ severity, code, found, reason: whole }) {
  // What can be said in a columns file is said here with a click.
  const reason = whole.replace(/; what a word in this column stands for can be said in the columns file.*$/, "").replace(/ \(shipping\[…\]\)(; to send such cards to each person's own address, .*)?$/, "");
  return `${severity === "warning" ? "May be wrong: " : ""}${found ? `“${found}” ` : ""}${reasonInWords(code, reason)} `;
}

// Codes of words that stand for none of a few values.
const WORDS = { not_allowed: true, not_a_boolean: true };

// The values that a column takes, as the reason tells them; few enough to choose from.
function choicesOf(code, reason) {
  if (code === "not_a_boolean") return ["true", "false"];
  const [, list] = /values: ([a-z_, ]+)/.exec(reason) ?? [];
  const values = list?.trim().split(", ") ?? [];
  return values.length <= 4 ? values : [];
}

// What can be done with one click: what was meant, here or in all rows that say the same.
function ways(draft, act, { line, at, text }, { suggestion, code, reason, column: of }) {
  const column = draft.table.headings[at]?.column;
  const isAlike = (other) => other.code === code && other.column === of && draft.rows.get(other.line)?.[at] === text;
  const alike = draft.found.filter(isAlike);
  // A word of theirs stands for the same in each of its rows.
  if (WORDS[code] && column && text && !suggestion) {
    const all = alike.length < 2 ? "" : isWhole(draft) ? ` in all ${count(alike.length)} rows` : " in every row that has it";
    return choicesOf(code, reason).map((value) => make("button", { type: "button", on: { click: () => act.word(column, text, value) } }, `“${text}” is ${value}${all}`));
  }
  if (code === "no_shipping" && !draft.tooLarge) {
    const own = make("button", { type: "button", on: { click: () => act.shipToOwn() } }, "Send such cards to their people’s own addresses");
    return [make("button", { type: "button", on: { click: () => act.add(line, ADDRESS) } }, "Type in its address"), ...(canShipToOwn(draft) ? [own] : [])];
  }
  // What comes first is the same in all of the column.
  if (code === "ambiguous_date" && !draft.tooLarge) {
    return ORDERS.map(([order, words]) => make("button", { type: "button", on: { click: () => act.order(order) } }, `The column’s dates are ${words}`));
  }
  // What is to be filled in may be a column that the file has not.
  const [, wanted] = /fill in (\S+)$/.exec(reason) ?? [];
  if (wanted && !draft.tooLarge && isColumn(wanted)) {
    return [make("button", { type: "button", on: { click: () => act.add(line, [wanted]) } }, `Type in “${inWords(wanted)}”`)];
  }
  if (!suggestion || draft.tooLarge) return [];
  const use = make("button", { type: "button", on: { click: () => act.edit(line, at, suggestion) } }, `Use “${suggestion}”`);
  if (alike.length < 2 || !column || text === "") return [use];
  return [use, make("button", { type: "button", on: { click: () => act.word(column, text, suggestion) } },
    `Use it for ${isWhole(draft) ? `all ${count(alike.length)} rows` : "every row"} with “${text}”`)];
}

// Whether all of the file's rows are here, and all that was found in them: how many are alike is not known otherwise.
function isWhole(draft) {
  const cut = cutOff(draft);
  return (draft.report.rows ?? 0) <= draft.rows.size && !cut.problems && !cut.warnings;
}

// Whether more was found than is told: an answer has the first of it alone.
function cutOff({ report, found }) {
  const told = (severity) => found.filter((one) => one.severity === severity).length;
  return { problems: (report.problem_count ?? 0) > told("problem"), warnings: (report.warning_count ?? 0) > told("warning") };
}
