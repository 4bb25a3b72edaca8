import { Connection } from "./connection.js";
import { recall, remember } from "./memory.js";
import { Outbox } from "./outbox.js";
import { listenForMenu, listenForRoom, showPeople, showRooms } from "./sidebar.js";
import { Timeline } from "./timeline.js";

const MOST_TEXT = 4000; // until the server says otherwise
const NOTICE_AFTER = 1500; // a break shorter than this is nobody's business
const RETRY_AFTER = 2000;

const room = location.pathname.split("/")[2];
const $ = (id) => document.getElementById(id);

let nick = recall("chat.nick", "");
let store = "";
let mostText = MOST_TEXT;
let unread = 0;
let notice = 0;
let retry = 0;

const outbox = new Outbox(room);
const timeline = new Timeline(room, (before) => {
  connection.send({ t: "fill", room, before, limit: 50 });
  return connection.open;
});

const frames = {
  welcome(frame) {
    if (store && store !== frame.store) timeline.cursor = null; // other data: joined starts anew
    store = frame.store;
    mostText = frame.limits.text;
    timeline.own(frame.user);
    for (const message of outbox.gather()) timeline.await(message);
    sendAll();
  },
  joined(frame) {
    timeline.joined(frame.from, frame.head);
    timeline.askAgain();
  },
  fill(frame) {
    if (frame.before) timeline.prepend(frame.before, frame.messages);
    else add(frame.messages);
  },
  ev(frame) {
    add([frame]);
    if (document.hidden && frame.user !== timeline.user) {
      unread++;
      showTitle();
    }
  },
  ack(frame) {
    timeline.acknowledge(frame.cid, frame.seq);
    outbox.remove(frame.cid);
  },
  who(frame) {
    showPeople(timeline.user, frame);
  },
  error(frame) {
    if (frame.code === "text" && frame.cid) {
      timeline.reject(frame.cid, frame.message, () => {});
      outbox.remove(frame.cid);
    }
    if (frame.code === "unavailable") {
      clearTimeout(retry);
      retry = setTimeout(askAgain, RETRY_AFTER);
    }
  },
};

const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  hello: () => ({ t: "hello", v: 1, nick, store, cursors: { [room]: timeline.nameCursor() } }),
  frame: (frame) => {
    if (Object.hasOwn(frames, frame.t)) frames[frame.t](frame); // a later server may say more
  },
  state: showState,
});

function add(messages) {
  for (const m of messages) {
    if (m.user === timeline.user) {
      timeline.settle(m.cid);
      outbox.remove(m.cid);
    }
  }
  if (!timeline.append(messages)) connection.resume();
}

function sendAll() {
  for (const message of outbox.all()) send(message);
}

// What the server could not take or give: messages, and history.
function askAgain() {
  sendAll();
  timeline.askAgain();
}

function send({ cid, text }) {
  connection.send({ t: "send", cid, room, text });
}

function showState(state) {
  if (document.documentElement.dataset.state === state) return;
  document.documentElement.dataset.state = state;
  clearTimeout(notice);
  if (state === "open") {
    $("state").textContent = "";
    return;
  }
  if (state === "outdated") {
    $("state").textContent = "There is a newer version of this page.";
    $("reload").hidden = false;
    return;
  }
  notice = setTimeout(() => {
    $("state").textContent = navigator.onLine ? "Reconnecting…" : "Offline. What you write is sent later.";
  }, NOTICE_AFTER);
}

function showTitle() {
  document.title = unread > 0 ? `(${unread}) #${room} · Chat` : `#${room} · Chat`;
}

function call(name) {
  nick = name.trim();
  remember("chat.nick", nick);
  $("my-name").value = nick;
  connection.send({ t: "nick", nick });
}

function showForms() {
  $("introduce").hidden = nick !== "";
  $("composer").hidden = nick === "";
  $("rename").hidden = nick === "";
}

// The box grows with what is in it; style.css says how far.
function fit() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

function checkLength() {
  const over = [...$("text").value].length - mostText;
  $("text-help").textContent = over > 0 ? `${over} characters too long` : "";
  return over <= 0;
}

$("introduce").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("name").value.trim() === "") return;
  call($("name").value);
  showForms();
  $("text").focus();
});

$("rename").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("my-name").value.trim() === "") {
    $("my-name").value = nick;
    return;
  }
  call($("my-name").value);
  showForms();
});

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (text.trim() === "" || !checkLength()) return;
  const message = outbox.add(text);
  timeline.await(message);
  send(message);
  $("text").value = "";
  fit();
  $("text").focus();
});

$("text").addEventListener("input", () => {
  fit();
  checkLength();
});

$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

// The address stays that of the room, for others to follow.
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $(nick === "" ? "name" : "text").focus();
});

$("reload").addEventListener("click", () => location.reload());

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  showTitle();
});

$("room").textContent = room;
$("my-name").value = nick;
showTitle();
showRooms(room);
listenForRoom();
listenForMenu();
showForms();
for (const message of outbox.all()) timeline.await(message);
if (nick !== "" && matchMedia("(hover: hover)").matches) $("text").focus();
