// Why rows of a batch were refused, and what it takes that they are not refused again.

import { byId, count, counted, make, say, show } from "/page/elements.js";
import { get } from "/page/http.js";
import { exactly, reasonAsSentence } from "/page/reasons.js";

const TAKES = {
  nothing: "need no change: choose the same file again",
  new_pin: "need a new PIN: make a file of these rows, and have their PINs encrypted anew",
  mending: "must be mended: make a file of these rows",
};

// Asks for the reasons whenever there are others than were seen.
export function showRefusals(view, batch, attempt, may) {
  if (view.refused === 0 || byId("mend-refused").hidden) return;
  const { refused, cancelled_rows: cancelled } = view;
  say("mend-refused-title", `Rows that were ${cancelled === refused ? "cancelled" : cancelled > 0 ? "refused or cancelled" : "refused"}`);
  const seen = `${batch.path} ${view.refused} ${view.state}`;
  const box = byId("refused-reasons");
  if (box.dataset.seen === seen) return;
  box.dataset.seen = seen;
  // What stands there was another batch's, or is so no more.
  box.replaceChildren();
  show("retry", false);
  attempt(async () => {
    const { reasons } = await get(`${batch.path}/refusals`).catch((error) => {
      // Asked for again as soon as there is something new of the batch.
      if (box.dataset.seen === seen) delete box.dataset.seen;
      throw error;
    });
    if (box.dataset.seen !== seen) return;
    box.replaceChildren(...reasons.map(({ code, rows, message, takes }) =>
      make("li", {}, make("strong", {}, counted(rows, "row")), ` ${rows === 1 ? TAKES[takes].replace("need ", "needs ") : TAKES[takes]}. `,
        make("span", { className: "hint", title: exactly(code, message) }, reasonAsSentence(code, message)))));
    const others = view.refused - reasons.reduce((sum, { rows }) => sum + rows, 0);
    if (others > 0) box.append(make("li", {}, make("strong", {}, counted(others, "row")), " for other reasons: the results have them all"));
    const asTheyAre = reasons.filter(({ takes }) => takes === "nothing").reduce((sum, { rows }) => sum + rows, 0);
    show("retry", asTheyAre > 0 && may("submit"));
    say("retry-words", `Try ${asTheyAre === 1 ? "it" : `these ${count(asTheyAre)}`} again: choose the same file`);
    const stay = view.refused - asTheyAre;
    say("retry-hint", [stay > 0 && `The other ${counted(stay, "row")} that ${stay === 1 ? "was" : "were"} refused ${stay === 1 ? "stays as it is" : "stay as they are"}: nothing is asked for ${stay === 1 ? "it" : "them"} until ${stay === 1 ? "it is" : "they are"} mended.`,
      "Rows that have their card get no second one."].filter(Boolean).join(" "));
  }, "refusals");
}
