// Columns of a file with something in them that no card gets.

import { joinedOf } from "/page/columns.js";
import { compared } from "/page/csv.js";
import { make } from "/page/elements.js";

// An amount with its cents or its currency.
const AMOUNT = /^\D{0,4}\d[\d.,'’\s]*[.,]\d{2}\D{0,4}$|\d\s*(?:[€$£¥]|(?:EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CAD|AUD|JPY)\b)|(?:[€$£¥]|\b(?:EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CAD|AUD|JPY))\s*\d/i;
// What people call a limit.
const LIMIT = /limit|límite|budget|betrag|amount|plafond|montant|importe|importo|bedrag|kwota|belopp/i;

// Their headings, each with an amount that stands below it, if one does.
export function leftOut(draft) {
  const { table, rows, added, report } = draft;
  const together = new Set(Object.values(draft.chosen ? joinedOf(draft) : draft.said?.joined ?? {}).flat().map(compared));
  // Of a file that is not shown, only what was said of its columns is known.
  const headings = table.headings.length > 0 ? table.headings
    : Object.entries(draft.said?.columns ?? {}).map(([heading, column]) => ({ heading, column, left_out: column === "" }));
  const isWhole = (report.rows ?? 0) <= rows.size;
  return headings.map((heading, at) => ({ ...heading, at }))
    .filter(({ heading, column, left_out: isLeftOut }) => heading !== "" && (isLeftOut || !column) && !together.has(compared(heading)) && !added.includes(heading))
    .map(({ heading, at, holds_pins: hasPins }) => ({ heading, hasPins, cells: [...rows.values()].map((cells) => cells[at]?.trim()).filter(Boolean) }))
    .filter(({ hasPins, cells }) => cells.length > 0 || hasPins || !isWhole)
    .map(({ heading, cells }) => ({ heading, amount: cells.find((cell) => AMOUNT.test(cell) || (LIMIT.test(heading) && /\d/.test(cell))) }));
}

// The same in sentences; what looks like money stands out, as nobody may notice otherwise that cards have no limit.
export function leftOutWords(draft) {
  const all = leftOut(draft);
  if (all.length === 0) return [];
  return [["Left out of your file: ", all.map(({ heading }) => heading).join(", "), "."],
    ...all.filter(({ amount }) => amount).map(({ heading, amount }) => [make("strong", {}, noLimit(heading)), ` “${amount}” looks like money. If it is a limit, say so under Columns.`])];
}

export function noLimit(heading) {
  return `“${heading}” is left out: no card gets it as its limit.`;
}
