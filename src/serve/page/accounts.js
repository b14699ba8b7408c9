// Where several accounts are served: the choice among them, and which one a page is of.

import { byId, cell, count, fill, make, say, show } from "/page/elements.js";
import { ACCOUNT_PATH } from "/page/http.js";

const MODES = { live: "live", test: "test", sandbox: "sandbox: none is real" };
const STATES = { opening: "Being opened", serving: "Ready", stopped: "Stopped" };

// Whether an account is to be chosen first.
export function isChoice(caller) {
  return Boolean(caller?.several_accounts) && ACCOUNT_PATH === "";
}

// Says on an account's page which one it is of.
export function showWhere(caller) {
  const choice = isChoice(caller);
  const isOneOf = Boolean(caller.several_accounts) && !choice;
  show("nav", !choice);
  const { account, account_name: name } = caller;
  show("account", isOneOf || Boolean(name));
  show("all-accounts", isOneOf);
  say("account", name ? [name, account].filter(Boolean).join(" · ") : isOneOf ? account : "");
}

// Whoever may see one alone is led to it.
export function showAccounts(accounts) {
  if (accounts.length === 1) return location.replace(`${accounts[0].path}/`);
  show("accounts-none", accounts.length === 0);
  show("accounts-table", accounts.length > 0);
  // Rows are changed in place, so that a focused link stays focused.
  fill(byId("accounts-table").tBodies[0], accounts, ({ id }) => id, (row, { id, name, path, state, reason, mode, ...batches }) => {
    if (row.cells.length === 0) {
      row.append(make("th", { scope: "row", data: { label: "Account" } }),
        ...["Cards", "State"].map((label) => cell("", label)), ...["Batches under way", "Waiting for approval or start"].map((label) => cell("", label, "number")));
    }
    // One that could not be opened has no page.
    const isServed = mode !== null;
    const called = name ? `${name} · ${id}` : id;
    if (Boolean(row.cells[0].querySelector("a")) !== isServed || row.cells[0].textContent !== called) {
      row.cells[0].replaceChildren(isServed ? make("a", { href: `${path}/` }, called) : called);
    }
    const stands = `${STATES[state]}${reason ? `: ${reason}` : ""}`;
    [MODES[mode] ?? "", stands, count(batches.batches_under_way), count(batches.batches_waiting)].forEach((words, index) => {
      if (row.cells[index + 1].textContent !== words) row.cells[index + 1].textContent = words;
    });
  });
}
