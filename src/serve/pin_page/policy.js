// Which PINs are refused, and why. Only this page can tell: the PIN leaves it encrypted.

// The key of the text that says what is wrong with a PIN, and the text's values; nothing for one that may be taken.
export function weakness(pin, policy) {
  if (pin === "") return { key: "pinMissing" };
  if (!/^[0-9]+$/.test(pin)) return { key: "notDigits" };
  const { digits_min: min, digits_max: max } = policy;
  if (pin.length < min || pin.length > max) {
    return { key: min === max ? "wrongLength" : "wrongLengthRange", values: { min, max, count: pin.length } };
  }
  if (!policy.repeated && steps(pin, 0)) return { key: "repeated" };
  if (!policy.ascending && (steps(pin, 1) || steps(pin, 9))) return { key: "sequence" };
  if (policy.refused.includes(pin)) return { key: "listed" };
  return null;
}

// Whether each digit is the one before and `by` more; 0 comes after 9, as on a keyboard.
function steps(pin, by) {
  return [...pin].every((digit, at) => at === 0 || Number(digit) === (Number(pin[at - 1]) + by) % 10);
}

// The rules as they are told before a PIN is typed: keys of texts with their values.
export function rules(policy) {
  const { digits_min: min, digits_max: max, refused } = policy;
  const example = (first, by) => Array.from({ length: min }, (_, at) => (first + at * by + 10 * min) % 10).join("");
  const told = [{ key: min === max ? "ruleDigits" : "ruleDigitsRange", values: { min, max } }];
  if (!policy.repeated) told.push({ key: "ruleRepeated", values: { same: example(1, 0) } });
  if (!policy.ascending) told.push({ key: "ruleSequence", values: { up: example(1, 1), down: example(min, -1) } });
  if (refused.length > 0) told.push({ key: "ruleListed" });
  return told;
}
