// Elements and words. Text is always set as text: nothing that was uploaded is ever read as markup.

export function byId(id) {
  return document.getElementById(id);
}

export function cell(content, name) {
  const element = document.createElement("td");
  if (name) element.className = name;
  element.append(content);
  return element;
}

// Makes a table body hold one row for each item, keeping rows whose item stays.
export function fill(body, items, keyOf, change) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = key;
    }
    change(row, item);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  known.forEach((row) => row.remove());
}

export function count(number) {
  return number.toLocaleString("en", { maximumFractionDigits: number < 100 ? 1 : 0 });
}

export function size(bytes) {
  return bytes < 1 << 20 ? `${count(Math.ceil(bytes / 1024))} KB` : `${count(bytes / (1 << 20))} MB`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Asks in the page's own dialog; answers whether it was a yes.
export function sure(words, yes) {
  const dialog = byId("sure");
  byId("sure-words").textContent = words;
  byId("sure-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// Saves text as a file.
export function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
