// What was mended on the page: what the server is told of it, columns that were added, and the whole as a file.

import { compared, records, written } from "/page/csv.js";
import { save } from "/page/elements.js";

const DELIMITERS = { semicolons: ";", tabs: "\t", "vertical bars": "|" };
// Kinds of file whose text the browser can write again.
const TEXTS = /\.(csv|tsv|txt)$/i;

// The mended cells, and before them the columns that the file has not.
export function editsOf(draft) {
  return [...draft.added.map((heading, index) => ({ column: draft.own + index + 1, heading })), ...draft.edits.values()];
}

// Adds those of the columns that the file has not, behind its own, and has all of them shown.
export function addColumns(draft, wanted) {
  const { headings } = draft.table;
  draft.own ??= headings.findLastIndex(({ heading }) => heading !== "") + 1;
  const there = new Set(headings.map(({ column }) => column));
  draft.added.push(...wanted.filter((column) => !there.has(column)));
  draft.table = withAdded(draft, draft.table);
  wanted.forEach((column) => draft.asked.add(column));
}

// A table with the columns that were added, also while nothing stands in them.
export function withAdded(draft, table) {
  if (draft.added.length === 0) return table;
  const own = table.headings.slice(0, draft.own);
  return { ...table, headings: [...own, ...draft.added.map((column) => ({ heading: column, column }))] };
}

// The file's own headings.
export function ownTable({ table, own }) {
  return own === null ? table : { ...table, headings: table.headings.slice(0, own) };
}

// Whether the mended file can be written here: from the text that it is, or from its cells where all of them are shown.
export function canBeWritten(draft) {
  // Words that were said once are written into each of their cells, as edits are.
  if (draft.edits.size === 0 && Object.values(draft.values).every((words) => Object.keys(words).length === 0)) return false;
  if (TEXTS.test(draft.file.name)) return true;
  return draft.table.headings.every(({ holds_pins: pins }) => !pins) && (draft.report.rows ?? Infinity) <= draft.table.rows.length
    && [...draft.rows.values()].every((cells) => cells.every((cell) => cell !== null));
}

// Saves the mended file.
export async function mendedFile(draft) {
  // Words that were said to stand for something are written as that.
  const words = draft.table.headings.map(({ column }) => new Map(Object.entries(draft.values[column] ?? {}).map(([word, value]) => [compared(word), value])));
  const meant = (cell, at) => words[at]?.get(compared(cell ?? "")) ?? cell ?? "";
  const rows = TEXTS.test(draft.file.name) ? await rowsOfText(draft, meant) : rowsOfTable(draft, meant);
  save(written(rows), `${draft.file.name.replace(/\.[^.]*$/, "")}.mended.csv`);
}

async function rowsOfText(draft, meant) {
  const { report, added, own, edits } = draft;
  const notes = (report.notes ?? []).join(" ");
  const readAs = report.read_as ?? /read as (Mac Roman|[\w-]+)/.exec(notes)?.[1];
  const delimiter = DELIMITERS[report.separated_by] ?? Object.entries(DELIMITERS).find(([name]) => notes.includes(name))?.[1] ?? ",";
  const all = records(await draft.file.arrayBuffer(), readAs, delimiter) ?? [];
  const headings = ownTable(draft).headings.map(({ heading }) => compared(heading)).join("\n");
  const header = added.length === 0 ? -1 : all.findIndex(({ cells }) => cells.slice(0, own).map(compared).join("\n") === headings);
  if (added.length > 0 && header < 0) throw new Error("The file with what was added cannot be written here: add the columns in your spreadsheet.");
  // What stands in no column of the file's would get the heading of one that was added.
  const stray = all.find(({ cells }, index) => added.length > 0 && index > header && cells.slice(own).some((cell) => cell.trim() !== ""));
  if (stray) throw new Error(`Line ${stray.line} has more cells than the file has headings, so the file with what was added cannot be written here: mend the line in your spreadsheet, and add the columns there.`);
  return all.map(({ line, cells }, index) => {
    if (added.length > 0 && index === header) return [...cells.slice(0, own), ...added];
    const behind = added.length > 0 && index > header ? Math.max(own + added.length - cells.length, 0) : 0;
    return [...cells, ...Array(behind).fill("")].map((cell, at) => meant(edits.get(`${line}:${at + 1}`)?.value ?? cell, at));
  });
}

function rowsOfTable({ table, rows }, meant) {
  const lines = [...rows.keys()].sort((one, other) => one - other);
  return [table.headings.map(({ heading }) => heading), ...lines.map((line) => table.headings.map((_, at) => meant(rows.get(line)[at], at)))];
}
