import { forget, keysWith, recall, remember } from "./memory.js";

// The outbox holds what was written and not acknowledged yet. Each message has
// a key of its own, so that two tabs never overwrite each other's. Both may
// send the same one: its cid makes that harmless.

export class Outbox {
  #prefix;
  #waiting = new Map(); // cid → message

  constructor(room) {
    this.#prefix = `chat.outbox.${room}.`;
    this.gather();
  }

  // Takes in what other tabs wrote, which may be closed by now. Gives what is new.
  gather() {
    const left = keysWith(this.#prefix)
      .map((key) => recall(key, null))
      .filter((m) => m && typeof m.cid === "string" && typeof m.text === "string" && !this.has(m.cid));
    left.sort((a, b) => a.at - b.at);
    for (const message of left) this.#waiting.set(message.cid, message);
    return left;
  }

  // All that waits, oldest first.
  all() {
    return [...this.#waiting.values()].sort((a, b) => a.at - b.at);
  }

  has(cid) {
    return this.#waiting.has(cid);
  }

  add(text) {
    const newest = this.all().at(-1);
    const at = Math.max(Date.now(), newest ? newest.at + 1 : 0); // keeps the order within a millisecond
    const message = { cid: newCID(), text, at };
    this.#waiting.set(message.cid, message);
    remember(this.#prefix + message.cid, message);
    return message;
  }

  remove(cid) {
    this.#waiting.delete(cid);
    forget(this.#prefix + cid);
  }
}

// crypto.randomUUID exists on secure origins only.
function newCID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
