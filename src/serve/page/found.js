// What was found in a file, where it is not shown in the file's own table.

import { inWords, sentenceInWords } from "/page/columns.js";
import { byId, cell, count, make, show } from "/page/elements.js";

// How many are shown, where that is not all.
export function firstOf(shown, total) {
  return total > shown ? ` The first ${count(shown)} of ${count(total)} are shown.` : "";
}

// Of a file that is too large for a table: what was found in it, line by line.
export function showLines(found) {
  show("edits-tools", false);
  show("mend-more", false);
  byId("filters").replaceChildren();
  const table = byId("mend-table");
  table.tHead.replaceChildren(make("tr", {}, ...["Line", "Row", "Column", "What is wrong"].map((words) => make("th", { scope: "col" }, words))));
  table.tBodies[0].replaceChildren(...found.slice(0, 200).map((one) => make("tr", {}, make("th", { scope: "row", data: { label: "Line" } }, String(one.line ?? "")),
    cell(one.row_id ?? "", "Row"), cell(inWords(one.column), "Column"), cell(words(one), "What is wrong"))));
}

export function words({ severity, found, reason, suggestion }) {
  return `${severity === "warning" ? "May be wrong: " : ""}${found ? `“${found}” ` : ""}${sentenceInWords(reason)}${suggestion ? ` (did you mean ${suggestion}?)` : ""}`;
}
