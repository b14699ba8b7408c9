// How a batch of the name stands under which a draft is to be issued.

import { sure } from "/page/elements.js";
import { get } from "/page/http.js";

// How a batch stands, in a word that is another as soon as something is; nothing where that cannot be seen.
export async function standing(name, may) {
  if (!may("read")) return null;
  try {
    const { state, latest_ms: latest } = await get(`/v1/batches/${encodeURIComponent(name)}`);
    return `${state} ${latest}`;
  } catch (error) {
    return error.problem?.status === 404 ? "" : null;
  }
}

// A batch of the name that waits for its start is begun by the same file without one: whether that is meant is asked.
export async function isWantedAtOnce(name, start, server, may) {
  if (start || !may("read") || server.approval_required) return true;
  let waits = null;
  try {
    waits = await get(`/v1/batches/${encodeURIComponent(name)}`);
  } catch (error) {
    if (error.problem?.status !== 404) throw error;
  }
  const at = waits?.state === "scheduled" ? waits.held?.start_ms : null;
  if (!at) return true;
  const words = `“${name}” waits for its start, ${new Date(at).toLocaleString()}. You gave no time: this file takes its place and begins at once.`;
  return sure(words, "Begin at once");
}
