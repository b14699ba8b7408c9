// What the columns of a file are: each heading beside what it is taken for, and what all rows have in common.

import { byId, cell, fill, make, visible } from "/page/elements.js";

// What a column can be, in people's words, by what it belongs to. Others of Stripe's parameters are written by their names.
export const COLUMNS = [
  ["The row", [["row_id", "Staff number: names the row for ever"]]],
  ["The person", [
    ["cardholder[name]", "Name"],
    ["cardholder[email]", "E-mail"],
    ["cardholder[phone_number]", "Telephone"],
    ["cardholder[individual][first_name]", "First name"],
    ["cardholder[individual][last_name]", "Last name"],
    ["cardholder[individual][dob]", "Date of birth"],
    ["cardholder[individual][dob][day]", "Birthday: day"],
    ["cardholder[individual][dob][month]", "Birthday: month"],
    ["cardholder[individual][dob][year]", "Birthday: year"],
    ["cardholder[billing][address][line1]", "Street and number"],
    ["cardholder[billing][address][line2]", "Address, second line"],
    ["cardholder[billing][address][postal_code]", "Postal code"],
    ["cardholder[billing][address][city]", "Town"],
    ["cardholder[billing][address][state]", "State or province"],
    ["cardholder[billing][address][country]", "Country"],
    ["cardholder", "A cardholder who exists: the id ich_…"],
  ]],
  ["The card", [
    ["type", "Kind: virtual or physical"],
    ["currency", "Currency"],
    ["status", "State: active or inactive"],
    ["pin[encrypted_number]", "Encrypted PIN"],
    ["pin[choose]", "Whether the cardholder chooses the PIN"],
    ["spending_controls[spending_limits][0][amount]", "Limit, in the smallest unit (50000 is 500.00)"],
    ["spending_controls[spending_limits][0][interval]", "Limit: per day, month, …"],
    ["personalization_design", "Design: the id pd_…"],
    ["second_line", "Second line on the card"],
    ["replacement_for", "The card that it replaces: the id ic_…"],
    ["replacement_reason", "Why it is replaced"],
    ["card", "A card that is changed: the id ic_…"],
    ["cancellation_reason", "Why a card is cancelled"],
  ]],
  ["The parcel", [
    ["shipping[name]", "To whom"],
    ["shipping[phone_number]", "Parcel: telephone"],
    ["shipping[address][line1]", "Parcel: street and number"],
    ["shipping[address][line2]", "Parcel: second line"],
    ["shipping[address][postal_code]", "Parcel: postal code"],
    ["shipping[address][city]", "Parcel: town"],
    ["shipping[address][state]", "Parcel: state or province"],
    ["shipping[address][country]", "Parcel: country"],
    ["shipping[service]", "Parcel: standard, express or priority"],
    ["shipping[type]", "Parcel: individual or bulk"],
    ["shipping[customs][eori_number]", "Parcel: EORI number for customs"],
  ]],
];

// Columns that have one of a few values, and these in words.
const CHOICES = {
  status: [["active", "active"], ["inactive", "inactive"]],
  "pin[choose]": [["true", "yes"], ["false", "no"]],
  "spending_controls[spending_limits][0][interval]": [["per_authorization", "each payment"], ["daily", "per day"], ["weekly", "per week"], ["monthly", "per month"], ["yearly", "per year"], ["all_time", "for all time"]],
  "shipping[service]": [["standard", "standard"], ["express", "express"], ["priority", "priority"]],
  "shipping[type]": [["individual", "individual"], ["bulk", "bulk"]],
};

const WORDS = new Map(COLUMNS.flatMap(([, columns]) => columns));
// What all rows may have in common.
export const DEFAULTS = ["type", "currency", "status"];

// What several columns are together.
const WHOLES = new Map([
  ["cardholder[individual]", "The person"],
  ["cardholder[billing]", "Address"], ["cardholder[billing][address]", "Address"],
  ["shipping", "Parcel"], ["shipping[address]", "Parcel: address"], ["shipping[customs]", "Parcel: customs"],
  ["spending_controls", "Limits"], ["spending_controls[spending_limits]", "Limits"],
]);
const LIMIT = /^spending_controls\[spending_limits\]\[(\d+)\](.*)$/;

// A column in people's words; Stripe may name a person's without saying whose.
export function inWords(column) {
  const [, at, part] = LIMIT.exec(column) ?? [];
  const which = part === "" ? "Limit" : part && WORDS.get(`spending_controls[spending_limits][0]${part}`);
  if (which) return at === "0" ? which : which.replace("Limit", `Limit ${Number(at) + 1}`);
  const name = /^(individual|billing)\b/.test(column) ? `cardholder${column.replace(/^[a-z_]+/, "[$&]")}` : column;
  return WORDS.get(name) ?? WHOLES.get(name) ?? column;
}

// Whether a column is one that people have a word for, and no parameter of Stripe's that stands for several.
export function isColumn(column) {
  return WORDS.has(column);
}

// Names that columns have at Stripe, among words that are a sentence.
const NAMES = /\b[a-z]+(?:_[a-z]+)*(?:\[\w*\])+|\b[a-z]+(?:_[a-z]+)+\b/g;

// Words of the API that a sentence has by the way.
const PLAIN = { row_id: "staff number", update_card: "a file of changes" };
// What Stripe still needs of a cardholder, as it writes that: individual.dob.day.
const NEEDED = /\b[a-z_]+(?:\.[a-z_0-9]+)+\b/g;

// A sentence about a row, with columns in people's words.
export function sentenceInWords(text) {
  const inQuotes = (column, name) => (inWords(column) === column ? name : `“${inWords(column)}”`);
  // What engineers call a file with columns of Stripe's names, and one that says what is which.
  const plain = text.replace(/\bthe columns file\b/g, "what you said of the columns").replace(/\bmanifest\b/g, "file");
  return plain.replace(NEEDED, (name) => inQuotes(`cardholder[${name.split(".").join("][")}]`, name))
    .replace(NAMES, (name) => PLAIN[name] ?? inQuotes(name, name));
}

// The key of metadata under which a heading's cells are kept with the card.
function keyOf(heading) {
  return [...heading].filter((letter) => /[\p{L}\p{N} \-_.]/u.test(letter)).slice(0, 40).join("").trim();
}

const REMEMBERED = "embosser-columns-of:";

// This tab remembers what the columns of a batch's file are: `{ columns, joined, defaults, values, ownAddress, dateOrder }`.
export function rememberColumns(batch, said) {
  sessionStorage.setItem(REMEMBERED + batch, JSON.stringify(said));
}

// Nothing if nothing was said of them in this tab.
export function rememberedColumns(batch) {
  return JSON.parse(sessionStorage.getItem(REMEMBERED + batch));
}

// A form with a file that a batch came from: what its headings are was said when it was uploaded in this tab.
export function formOf(batch, file) {
  const data = new FormData();
  const said = rememberedColumns(batch);
  if (said) data.append("columns", toml(said));
  data.append("manifest", file, file.name);
  return data;
}

// A text as TOML has it.
function quoted(text) {
  return JSON.stringify(text).replaceAll("\u007f", "\\u007f");
}

const NAME = "cardholder[name]";
// What several headings can be together, a blank between two.
const JOINABLE = new Set([NAME, "shipping[name]", ...["cardholder[billing]", "shipping"].flatMap((of) => [`${of}[address][line1]`, `${of}[address][line2]`])]);

// The headings of a first and a last name, where no column is the whole name: it is made of both.
function halvesOfName(chosen) {
  const headingOf = (wanted) => [...chosen].find(([, column]) => column === wanted)?.[0];
  const halves = ["first_name", "last_name"].map((half) => headingOf(`cardholder[individual][${half}]`));
  return halves.every((half) => half !== undefined) ? halves : [];
}

// The columns that are filled from several headings, with these in the order in which they are read. `joins` has those that were
// proposed or kept, each with `[heading, what it is otherwise]`: a heading of which something else was said since is no part any more.
export function joinedOf({ chosen, joins, defaults }) {
  const joined = {};
  for (const column of new Set([...Object.keys(joins), ...JOINABLE])) {
    const known = (joins[column] ?? []).filter(([heading, is]) => chosen.get(heading) === is).map(([heading]) => heading);
    const said = [...chosen].filter(([, is]) => is === column).map(([heading]) => heading);
    if (said.length > 0 && known.length === 0 && !JOINABLE.has(column)) continue;
    const halves = column === NAME && known.length === 0 && said.length === 0 && !defaults[NAME] ? halvesOfName(chosen) : [];
    const all = new Set([...known, ...halves, ...said]);
    const isKnown = [...all].every((heading) => known.includes(heading) || halves.includes(heading));
    // In the file's order, where nobody said another.
    if (all.size > 1) joined[column] = isKnown ? [...all] : [...chosen.keys()].filter((heading) => all.has(heading));
  }
  return joined;
}

// The columns that several headings are at once, and cannot be together.
export function twice({ chosen, ...draft }) {
  const joined = joinedOf({ chosen, ...draft });
  const headings = new Map();
  for (const [heading, column] of chosen) if (column && !joined[column]?.includes(heading)) headings.set(column, [...(headings.get(column) ?? []), heading]);
  return [...headings].filter(([, all]) => all.length > 1);
}

// The text of a columns file.
export function toml({ columns, joined = {}, defaults, values, ownAddress = false, dateOrder = "" }) {
  const lines = (pairs) => pairs.map(([name, value]) => `${quoted(name)} = ${quoted(value)}\n`).join("");
  const words = Object.entries(values).filter(([, pairs]) => Object.keys(pairs).length > 0);
  const together = Object.entries(joined).map(([column, headings]) => `${quoted(column)} = [${headings.map(quoted).join(", ")}]\n`).join("");
  // What a heading is together with others it is not alone.
  const alone = Object.entries(columns).map(([heading, column]) => [heading, joined[column]?.includes(heading) ? "" : column]);
  return `[columns]\n${lines(alone)}${together && `\n[joined]\n${together}`}\n[defaults]\n${lines(Object.entries(defaults).filter(([, value]) => value))}${
    words.map(([column, pairs]) => `\n[values.${quoted(column)}]\n${lines(Object.entries(pairs))}`).join("")}${ownAddress ? `\n[shipping]\nto = "own address"\n` : ""}${dateOrder ? `\n[dates]\norder = ${quoted(dateOrder)}\n` : ""}`;
}

// What a heading is taken for before anybody said so, beside the columns that the file surely has: an empty text leaves it out.
// One that is a part of something alone, such as a house's number, is that.
export function taken({ heading, column, guess, proposal: alone, left_out: leftOut }, given, joined = []) {
  if (heading === "" || leftOut) return "";
  const whole = joined.find(({ headings }) => headings.includes(heading))?.column;
  const proposal = whole && (guess || !alone) ? whole : alone;
  // Beside the id of a cardholder who exists, or of a card, a name says who it is: nobody is to be created by it.
  const isOfSomebody = (given.has("cardholder") || given.has("card")) && proposal?.startsWith("cardholder[");
  return column ?? (isOfSomebody ? "" : proposal) ?? "";
}

// Whose headings stand in the table.
let inTable = null;

// Shows the headings of `table`; the draft's `chosen` has what each is, and changes as its reader chooses. What is chosen from stays the
// same element meanwhile: whoever chooses by keyboard goes on where they are.
export function showColumns(table, draft, changed) {
  const { chosen } = draft;
  const joined = joinedOf(draft);
  const rows = table.headings.map((heading, index) => ({ ...heading, index })).filter(({ heading }) => heading !== "");
  const body = byId("columns-table").tBodies[0];
  if (inTable !== draft) body.replaceChildren();
  inTable = draft;
  fill(body, rows, ({ index, heading }) => `${index} ${heading}`, (row, heading) => {
    const seen = table.rows.map(({ cells }) => cells[heading.index]).filter(Boolean);
    const samples = [...new Set(seen)].slice(0, 3).join(" · ");
    if (row.cells.length === 0) {
      row.append(make("th", { scope: "row", data: { label: "Your heading" } }, heading.heading), cell("", "Below it", "hint"),
        make("td", { data: { label: "What it is" } }, ...choice(heading, draft, changed)));
    }
    row.cells[1].textContent = visible(heading.holds_pins ? "not shown: it may hold PINs" : samples);
    showChoice(row.cells[2], heading, draft, joined);
    showOrder(row.cells[2], heading, draft, seen);
  });
  for (const name of DEFAULTS) {
    const isColumn = [...chosen.values()].includes(name);
    byId("defaults").querySelector(`[data-default=${name}]`).hidden = isColumn;
  }
}

const HOME = "cardholder[billing][address][line1]";
// What says to whom or where a card is sent.
const SENT_TO = ["shipping[name]", ...["line1", "line2", "postal_code", "city", "state", "country"].map((part) => `shipping[address][${part}]`)];

// Whether physical cards can be sent to their people's own addresses: these are known, some cards may be physical, and nothing else is
// said for all of them.
export function canShipToOwn({ chosen, table, joins, defaults }) {
  const given = chosen ? [...chosen.values(), ...Object.keys(joinedOf({ chosen, joins, defaults }))] : table.headings.map(({ column }) => column);
  const mayBePhysical = given.includes("type") || defaults.type === "physical";
  return (given.includes(HOME) || Boolean(defaults[HOME])) && mayBePhysical && !SENT_TO.some((column) => defaults[column]);
}

// Offers that choice where it can be made.
export function showOwnAddress(draft) {
  byId("own-address-choice").hidden = !canShipToOwn(draft);
  byId("own-address").checked = draft.ownAddress;
}

// What else all rows have in common, where the file has no column for it: an office to which every card is sent, for instance.
export function showMoreDefaults(draft, changed) {
  const isOpen = (column) => !DEFAULTS.includes(column) && column !== "row_id" && ![...draft.chosen.values()].includes(column);
  const fields = Object.keys(draft.defaults).filter(isOpen).map((column) => {
    const on = { input: () => {
      draft.defaults[column] = input.value.trim();
      changed();
    } };
    const now = draft.defaults[column];
    const choices = CHOICES[column] && [["", "Choose…"], ...CHOICES[column], ...(now && CHOICES[column].every(([value]) => value !== now) ? [[now, now]] : [])];
    const input = choices ? make("select", { on }, ...choices.map(([value, words]) => new Option(words, value, false, value === now)))
      : make("input", { value: now, autocomplete: "off", spellcheck: false, on });
    const away = make("button", { type: "button", className: "quiet", on: { click: () => {
      delete draft.defaults[column];
      showMoreDefaults(draft, changed);
      changed();
    } } }, "Take it out");
    return make("p", {}, make("label", {}, inWords(column), " ", input), away);
  });
  byId("more-defaults").replaceChildren(...fields);
  const select = byId("add-default");
  const groups = COLUMNS.map(([group, columns]) => make("optgroup", { label: group },
    ...columns.filter(([column]) => isOpen(column) && !(column in draft.defaults)).map(([column, words]) => new Option(words, column))));
  select.replaceChildren(new Option("Choose what to add…", ""), ...groups);
  // Not as soon as it is chosen: by keyboard each letter chooses.
  byId("add-default-go").onclick = () => {
    if (!select.value) return select.focus();
    draft.defaults[select.value] = "";
    showMoreDefaults(draft, changed);
    byId("more-defaults").querySelector("p:last-child :is(input, select)").focus();
  };
}

// What a heading is together with others, in words.
function together(heading, is, joined) {
  return Object.entries(joined).filter(([, headings]) => headings.includes(heading)).map(([column, headings]) => {
    const others = headings.filter((other) => other !== heading).map((other) => `“${other}”`).join(" and ");
    return make("p", { className: "hint" }, column === is ? `${inWords(column)}, together with ${others}` : `And a part of “${inWords(column)}”, together with ${others}`);
  });
}

const BORN = "cardholder[individual][dob]";
// A date that ends with its year, of which the day or the month may come first; behind dots it is the month.
const EITHER = /^\d{1,2}[-/ ]\d{1,2}[-/ ]\d{4}\b/;
export const ORDERS = [["day/month/year", "day, month, year"], ["month/day/year", "month, day, year"]];

// What comes first in a column's dates, where they have such ones.
function showOrder(cell, { heading }, draft, seen) {
  const there = cell.querySelector(".order");
  const isAsked = draft.chosen.get(heading) === BORN && (draft.dateOrder || seen.some((text) => EITHER.test(text)));
  if (!isAsked) return there?.remove();
  if (there) there.querySelector("select").value = draft.dateOrder ?? "";
  if (there) return;
  const on = { change: ({ target }) => (draft.dateOrder = target.value) };
  const options = [["", "as its own dates show"], ...ORDERS].map(([value, words]) => new Option(words, value, false, value === draft.dateOrder));
  cell.append(make("p", { className: "order" }, make("label", {}, "Its dates are written ", make("select", { id: "date-order", on }, ...options))));
}

// What a heading can be: the choice, and a line for what is in no list.
function choice(heading, draft, changed) {
  const keep = `metadata[${keyOf(heading.heading)}]`;
  const select = make("select", { aria: { label: `What ${heading.heading} is` } });
  select.append(new Option("Leave it out", ""));
  if (keyOf(heading.heading)) select.append(new Option(`Keep it with the card, as “${keyOf(heading.heading)}”`, keep));
  for (const [group, columns] of COLUMNS) {
    select.append(make("optgroup", { label: group }, ...columns.map(([value, words]) => new Option(words, value))));
  }
  select.append(new Option("Another, by its name at Stripe…", "?"));
  const other = make("input", {
    hidden: true, placeholder: "spending_controls[…]", autocomplete: "off", spellcheck: false,
    aria: { label: `What ${heading.heading} is called at Stripe` },
    on: { change: () => set(other.value.trim()) },
  });
  const set = (value) => {
    draft.chosen.set(heading.heading, value);
    changed();
  };
  select.addEventListener("change", () => {
    other.hidden = select.value !== "?";
    if (other.hidden) set(select.value);
    // The line is the next by keyboard: whoever only passes this choice is not taken away from it.
    else other.value = "";
  });
  return [select, other];
}

// Shows what a heading is at present, and what is told of that.
function showChoice(box, heading, draft, joined) {
  const now = draft.chosen.get(heading.heading) ?? "";
  const [select, other] = box.children;
  if ([...select.options].every(({ value }) => value !== now)) select.add(new Option(now, now), select.options[1]);
  // A line in which somebody writes stays until it says something.
  if (select.value !== "?" || other.hidden || now === other.value.trim()) {
    select.value = now;
    other.hidden = true;
  }
  for (const hint of [...box.children].slice(2)) if (!hint.matches(".order")) hint.remove();
  const isGuess = heading.guess && now && now === heading.proposal;
  box.append(...together(heading.heading, now, joined), ...(isGuess ? [make("p", { className: "hint" }, "A guess by its letters: please look.")] : []));
}
