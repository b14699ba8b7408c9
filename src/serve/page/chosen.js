// Cards that were chosen among a batch's rows, to be cancelled: by a file of changes, which is checked, asked about and kept as any other.

import { byId, count, make, say, show } from "/page/elements.js";

let batch = "";
let chosen = new Set();
let may = () => false;

export function setChosenRoles(can) {
  may = can;
}

export function startChosen(onFile) {
  byId("chosen-cancel").addEventListener("click", () => onFile(fileOfChosen()));
  byId("chosen-none").addEventListener("click", () => {
    chosen.clear();
    for (const box of byId("rows-table").querySelectorAll("input[type=checkbox]")) box.checked = false;
    tell();
  });
}

export function openChosen(name) {
  batch = name;
  chosen = new Set();
  tell();
}

// A box before a row whose card can be cancelled; nothing before any other.
export function boxOf({ outcome, card_id: card, cancelled_by: cancelled }, who) {
  if (!may("submit") || outcome !== "issued" || cancelled || !card?.startsWith("ic_")) return "";
  const change = ({ target }) => {
    if (target.checked) chosen.add(card);
    else chosen.delete(card);
    tell();
  };
  return make("input", { type: "checkbox", className: "choice-box", checked: chosen.has(card), aria: { label: `Choose the card of ${who}` }, on: { change } });
}

function tell() {
  show("chosen", chosen.size > 0);
  say("chosen-cancel", chosen.size === 1 ? "Cancel the chosen card…" : `Cancel the ${count(chosen.size)} chosen cards…`);
}

// Its name, and so its batch's, is another one each time: what is chosen later is another batch.
function fileOfChosen() {
  const now = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "");
  const lines = [...chosen].map((card) => `${card},canceled\n`);
  return new File([`card,status\n${lines.join("")}`], `left-${now}-${batch}.csv`, { type: "text/csv" });
}
