// What the browser remembers between visits. Storage may be full, or refused
// altogether in a private window; the page then goes on without.

export function recall(key, otherwise) {
  try {
    const text = localStorage.getItem(key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // The page goes on without.
  }
}

export function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // The page goes on without.
  }
}

export function keysWith(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}
