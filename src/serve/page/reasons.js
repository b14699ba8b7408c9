// Why a row cannot be issued, or was refused, in words of who made the file. What the server says of it, which engineers need, is in
// titles and in the files that are downloaded.

import { sentenceInWords } from "/page/columns.js";

const PIN_ANEW = "have the PIN encrypted anew";

// By the code of what was refused. Others have sentences that can be shown as they are, such as Stripe's own.
const REASONS = {
  stale_key: `the PIN was encrypted with a key that Stripe has replaced since: ${PIN_ANEW}`,
  expired: `it waited for too long: send it again, and where it has a PIN ${PIN_ANEW}`,
  pin_in_clear: "this PIN can be read by anybody: treat it as known to others. A PIN is encrypted where its cardholder types it in, and comes here like that",
  no_pin_page: "no page is set up on which cardholders choose their PINs: tell whoever runs embosser",
  unresolved: "the call to Stripe was cut off: whether it was done is not known yet",
  no_answer: "Stripe did not answer: whether it was done is not known yet",
  stripe_unreachable: "Stripe could not be reached",
  stripe_error: "Stripe had trouble of its own: whether it was done is not known yet",
  still_running: "Stripe was still at work on it: whether it was done is not known yet",
  rate_limited: "Stripe was asked for too much at once",
  api_key_rejected: "Stripe did not take this server’s key: tell whoever runs embosser",
  pin_key_unavailable: "Stripe’s key for PINs could not be had, so that the PIN could not be looked at",
  wrong_account: "it is for another Stripe account than this server’s",
  wrong_mode: "it is for real cards where test cards are made, or the other way round",
};

// A reason with its code: in plain words, and without what only a command line takes.
export function reasonInWords(code, reason) {
  // Each rule of how a PIN is encrypted has a code of its own; who sends the file can do the same about all of them.
  const known = code?.startsWith("jwe_") ? `the PIN is not encrypted as Stripe wants it: ${PIN_ANEW}, by the program that did it` : REASONS[code];
  return known ?? sentenceInWords(plainly(reason ?? ""));
}

function plainly(reason) {
  return reason
    .replace(/, or say which it is with --encoding [^)]*\(over HTTP \?encoding=\)/g, "")
    .replace(/; or, if it certainly is [^,]+, say so with --encoding [^)]*\(over HTTP \?encoding=\)/g, "")
    .replace(/; to send such cards to each person's own address, write \[shipping\] .*$/, "")
    .replace(/; say in the columns file, under \[dates\], .*$/, "; write the year first, as in 1990-02-28, or say what comes first")
    .replace(/, as the columns file says under \[dates\]/, ", as you said")
    // Stripe's sentence says already whose parameter it is about, but for parts of an address and the like.
    .replace(/ \(parameter (\w+\[[^)]*)\)/g, " ($1)")
    .replace(/ \(parameter \w+\)/g, "")
    .replace(/\bis no parameter of Stripe's\b/g, "is nothing that Stripe knows")
    .replace(/\bno parameter of\b/g, "nothing that is said of");
}

// The same where it begins a sentence.
export function reasonAsSentence(code, reason) {
  const words = reasonInWords(code, reason);
  return words && words[0].toUpperCase() + words.slice(1);
}

// What an engineer asks for: the code, and the server's own words where others are shown.
export function exactly(code, reason) {
  return [code, reason].filter(Boolean).join(": ");
}
