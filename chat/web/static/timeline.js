// The timeline shows the messages of the room in the order of their sequence
// numbers, without a gap, and below them what was not acknowledged yet. What
// people write goes into text nodes only.

const NEAR_END = 80; // pixels from the end that still count as being there
const NEAR_START = 400; // pixels from the start at which older messages are asked for
const GROUP_WITHIN = 5 * 60_000;
const MOST_SHOWN = 1200;
const KEPT = 800;

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const thisYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const otherYear = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

function element(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function dayOf(at) {
  const day = new Date(at);
  const now = new Date();
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
  const days = Math.ceil((midnight - day) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return (day.getFullYear() === now.getFullYear() ? thisYear : otherYear).format(day);
}

export class Timeline {
  #log = document.getElementById("log");
  #begin = document.getElementById("begin");
  #messages = document.getElementById("messages");
  #pending = document.getElementById("pending");
  #newer = document.getElementById("newer");
  #unseen = 0;
  #filling = false;
  #atEnd = true;
  #ask;

  user = ""; // who we are
  cursor = null; // the number up to which we have all since the first
  #named = null; // the cursor in the last hello
  #first = null; // the number before which older ones may be
  #history = 0; // the number up to which all was said before we came

  // ask(before) asks the server for older messages.
  constructor(room, ask) {
    this.#ask = ask;
    this.#begin.textContent = `This is the beginning of #${room}.`;
    this.#log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#newer.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#atEnd && this.toEnd()).observe(this.#log);
  }

  // The cursor for a hello. Another connection may still move it on.
  nameCursor() {
    this.#named = this.cursor;
    return this.#named;
  }

  // The server begins to send what follows from. When that is not what the
  // hello named, what we show is of another past.
  joined(from, head) {
    if (this.cursor !== null && this.#named === from) return;
    for (const node of [...this.#pending.children]) {
      if (Number(node.dataset.seq) <= from) node.remove(); // it is history, and does not come now
    }
    this.#messages.replaceChildren();
    this.cursor = from;
    this.#first = from + 1;
    this.#history = head;
    this.#showBeginning();
  }

  // What was asked for will not come: the connection is new, or the server
  // could not give it.
  askAgain() {
    this.#filling = false;
    this.#fillUp();
  }

  // Adds messages that follow. Tells whether they did: false means that some
  // are missing.
  append(messages) {
    const fresh = messages.filter((m) => m.seq > this.cursor);
    if (fresh.length > 0 && fresh[0].seq <= this.#history) this.#quiet();
    for (const message of fresh) {
      if (message.seq !== this.cursor + 1) return false;
      this.cursor = message.seq;
      const node = this.#render(message);
      this.#dress(node, this.#messages.lastElementChild);
      this.#messages.append(node);
      if (!this.#atEnd && message.user !== this.user) this.#unseen++;
    }
    if (this.#atEnd) {
      this.#trim();
      this.toEnd();
    }
    this.#showUnseen();
    this.#fillUp();
    return true;
  }

  // Puts older messages before the first.
  prepend(before, messages) {
    if (before !== this.#first) return;
    this.#filling = false;
    const older = document.createDocumentFragment();
    for (const message of messages) {
      const node = this.#render(message);
      this.#dress(node, older.lastElementChild);
      older.append(node);
    }
    if (messages.length > 0) this.#first = messages[0].seq;
    const last = this.#messages.firstElementChild;
    const height = this.#log.scrollHeight;
    this.#quiet();
    if (last && older.lastElementChild) this.#dress(last, older.lastElementChild);
    this.#messages.prepend(older);
    this.#log.scrollTop += this.#log.scrollHeight - height;
    this.#showBeginning();
    this.#fillUp();
  }

  // Shows a message that waits to be sent.
  await(message) {
    const node = this.#render({ ...message, user: this.user, nick: "You" });
    node.classList.add("waiting", "start");
    node.dataset.cid = message.cid;
    this.#pending.append(node);
    this.toEnd();
  }

  // The message is stored. It follows, unless it was in the timeline before:
  // then the last acknowledgement was lost, or it was sent in another tab.
  acknowledge(cid, seq) {
    if (seq <= this.cursor) this.settle(cid);
    else if (this.#waiting(cid)) this.#waiting(cid).dataset.seq = seq;
  }

  // The message is in the timeline now.
  settle(cid) {
    this.#waiting(cid)?.remove();
  }

  // The message will not be sent; remove is called when the user has seen so.
  reject(cid, why, remove) {
    const node = this.#waiting(cid);
    if (!node || node.classList.contains("refused")) return;
    node.classList.replace("waiting", "refused");
    const note = element("p", "note", `Not sent: ${why} `);
    const button = element("button", "quiet", "Remove");
    button.type = "button";
    button.addEventListener("click", () => {
      node.remove();
      remove();
    });
    note.append(button);
    node.append(note);
    this.toEnd();
  }

  // We know who we are only once the server has said so.
  own(user) {
    this.user = user;
    for (const node of this.#messages.children) {
      node.classList.toggle("own", node.dataset.user === user);
    }
  }

  toEnd() {
    this.#atEnd = true;
    this.#unseen = 0;
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#showUnseen();
  }

  // What is added now is not read out: history is not news.
  #quiet() {
    this.#log.setAttribute("aria-busy", "true");
    requestAnimationFrame(() => this.#log.removeAttribute("aria-busy"));
  }

  #waiting(cid) {
    return [...this.#pending.children].find((node) => node.dataset.cid === cid);
  }

  #render(message) {
    const node = element("article", "message");
    if (message.seq) node.dataset.seq = message.seq;
    node.dataset.user = message.user;
    node.dataset.nick = message.nick;
    node.dataset.at = message.at;
    node.classList.toggle("own", message.user === this.user || !message.seq);
    const head = element("header", "head");
    const time = element("time", "time", clock.format(message.at));
    time.dateTime = new Date(message.at).toISOString();
    time.title = fullTime.format(message.at);
    const nick = element("bdi", "nick", message.nick);
    head.append(nick, " ", time);
    const text = element("p", "text", message.text);
    text.dir = "auto";
    node.append(head, text);
    return node;
  }

  // Shows the day where it changes, and the name where another one speaks.
  #dress(node, previous) {
    const day = dayOf(Number(node.dataset.at));
    const newDay = !previous || dayOf(Number(previous.dataset.at)) !== day;
    node.querySelector(".day")?.remove();
    if (newDay) node.prepend(element("p", "day", day));
    const goesOn =
      !newDay &&
      previous.dataset.user === node.dataset.user &&
      previous.dataset.nick === node.dataset.nick &&
      node.dataset.at - previous.dataset.at < GROUP_WITHIN;
    node.classList.toggle("start", !goesOn);
  }

  #showBeginning() {
    this.#begin.hidden = this.#first === null || this.#first > 1;
  }

  #showUnseen() {
    this.#newer.hidden = this.#unseen === 0;
    this.#newer.textContent = this.#unseen === 1 ? "1 new message" : `${this.#unseen} new messages`;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (this.#atEnd && this.#unseen > 0) {
      this.#unseen = 0;
      this.#showUnseen();
    }
    this.#fillUp();
  }

  // Asks for older messages when the reader comes near the start.
  #fillUp() {
    if (this.#filling || this.#first === null || this.#first <= 1) return;
    if (this.#log.scrollTop > NEAR_START) return;
    this.#filling = this.#ask(this.#first);
  }

  // Forgets the oldest while the reader is at the end; they come again on the
  // way up.
  #trim() {
    const shown = this.#messages.children;
    if (shown.length <= MOST_SHOWN || this.#filling) return;
    while (shown.length > KEPT) shown[0].remove();
    this.#first = Number(shown[0].dataset.seq);
    this.#dress(shown[0], null);
    this.#showBeginning();
  }
}
