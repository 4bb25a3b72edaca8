// A Connection keeps the page talking to some server. It is made of links: one
// link is one WebSocket from the dial to the close. When the server says go,
// the next link is dialled and welcomed before the last one is closed; the
// messages that then come twice are dropped by their sequence numbers.

const PROTOCOL = "chat.v1";
const WELCOME_WITHIN = 10_000;
const QUIET_BEFORE_PING = 25_000;
const PONG_WITHIN = 10_000;

const RESTART = 1012;
const TRY_LATER = 1013;
const TOO_FAST = 4029;
const BAD_FRAME = 4400;

// How long to wait before dialling again. A server that restarts is back in a
// moment; all others get more time with each failure. Jitter keeps the clients
// of one server from coming back all at once.
function reconnectDelay(code, failures) {
  const jitter = 0.5 + Math.random() / 2;
  switch (code) {
    case RESTART:
      return 50 + Math.random() * 350;
    case TRY_LATER:
    case TOO_FAST:
      return 15_000 * jitter;
    default:
      return Math.min(15_000, 250 * 2 ** failures) * jitter;
  }
}

// Pace keeps what is sent within the server's limits.
class Pace {
  #waiting = [];
  #timer = 0;
  #tokens = 1;
  #at = performance.now();
  #rate = 1;
  #burst = 1;

  constructor(send) {
    this.send = send;
  }

  // A tenth is left for the difference between two clocks.
  allow({ rate, burst }) {
    this.#rate = rate * 0.9;
    this.#burst = Math.max(1, burst * 0.9 - 2);
    this.#tokens = this.#burst;
  }

  push(frame) {
    this.#waiting.push(frame);
    this.#flush();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#waiting = [];
  }

  #flush() {
    clearTimeout(this.#timer);
    const now = performance.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#at) / 1000) * this.#rate);
    this.#at = now;
    while (this.#waiting.length > 0 && this.#tokens >= 1) {
      this.#tokens -= 1;
      this.send(this.#waiting.shift());
    }
    if (this.#waiting.length > 0) {
      this.#timer = setTimeout(() => this.#flush(), ((1 - this.#tokens) / this.#rate) * 1000 + 1);
    }
  }
}

class Link {
  #socket;
  #owner;
  #timer = 0;
  #pace;
  welcomed = false;

  constructor(url, owner) {
    this.#owner = owner;
    this.#pace = new Pace((frame) => this.#post(frame));
    this.#socket = new WebSocket(url, PROTOCOL);
    this.#socket.onopen = () => this.#post(owner.hello());
    this.#socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    this.#socket.onclose = (event) => this.#end(event.code);
    this.#expect(WELCOME_WITHIN);
  }

  send(frame) {
    this.#pace.push(frame);
  }

  // Asks for a sign of life.
  probe(within = PONG_WITHIN) {
    this.send({ t: "ping" });
    this.#expect(within);
  }

  close() {
    this.#detach();
    this.#socket.close(1000);
  }

  #post(frame) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  // Gives the link up unless something comes in time.
  #expect(within) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(1006), within);
  }

  #take(frame) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.probe(), QUIET_BEFORE_PING);
    if (frame.t === "welcome") {
      this.welcomed = true;
      this.#pace.allow(frame.limits);
    }
    this.#owner.took(this, frame);
  }

  #detach() {
    clearTimeout(this.#timer);
    this.#pace.stop();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
  }

  #end(code) {
    this.#detach();
    this.#socket.close();
    this.#owner.ended(this, code);
  }
}

export class Connection {
  #url;
  #handlers;
  #current = null; // the link that was welcomed
  #next = null; // the link that is being dialled
  #timer = 0;
  #failures = 0;
  #stopped = false;

  // handlers: hello() gives the hello frame; frame(f) takes what comes;
  // state(s) hears "open", "waiting" or "outdated".
  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    addEventListener("online", () => this.#hurry());
    addEventListener("pageshow", () => this.#hurry());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#hurry();
    });
    this.#dial();
  }

  get open() {
    return this.#current !== null;
  }

  send(frame) {
    this.#current?.send(frame);
  }

  // Comes back with the cursors: something was missed.
  resume() {
    const last = this.#current;
    this.#current = null;
    last?.close();
    this.#handlers.state("waiting");
    this.#dialIn(reconnectDelay(1006, this.#failures++));
  }

  hello() {
    return this.#handlers.hello();
  }

  took(link, frame) {
    if (frame.t === "welcome") this.#promote(link);
    if (link !== this.#current) return;
    if (frame.t === "joined") this.#failures = 0; // a welcome alone is no success: a server may read nothing
    if (frame.t === "go") {
      this.#dialIn(Math.random() * (frame.after ?? 0));
      return;
    }
    this.#handlers.frame(frame);
  }

  ended(link, code) {
    if (link === this.#next) this.#next = null;
    if (link === this.#current) this.#current = null;
    if (code === BAD_FRAME) {
      this.#stopped = true; // this page is not of the server's time
      this.#handlers.state("outdated");
      return;
    }
    if (!this.#current) this.#handlers.state("waiting");
    if (!this.#next) this.#dialIn(reconnectDelay(code, this.#failures++));
  }

  #promote(link) {
    const last = this.#current;
    this.#current = link;
    this.#next = null;
    last?.close();
    this.#handlers.state("open");
  }

  #dialIn(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), delay);
  }

  #dial() {
    clearTimeout(this.#timer);
    if (this.#next || this.#stopped) return;
    this.#next = new Link(this.#url, this);
  }

  // The network or the user is back: no reason to wait.
  #hurry() {
    if (this.#current) this.#current.probe(5000);
    else this.#dial();
  }
}
