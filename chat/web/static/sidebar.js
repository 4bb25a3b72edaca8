import { recall, remember } from "./memory.js";

// The sidebar: which rooms there are, who is here, and what we are called. On
// a narrow screen it slides over the messages.

const DEFAULT_ROOM = "lobby";
const MOST_ROOMS = 8;
const ROOM_NAME = /^[a-z0-9][a-z0-9_-]{0,31}$/;

function item(...children) {
  const node = document.createElement("li");
  node.append(...children);
  return node;
}

export function showRooms(current) {
  const visited = recall("chat.rooms", []).filter((name) => ROOM_NAME.test(name) && name !== current);
  visited.unshift(current);
  remember("chat.rooms", visited.slice(0, MOST_ROOMS));
  const names = [...new Set([DEFAULT_ROOM, ...visited.slice(0, MOST_ROOMS).sort()])];
  document.getElementById("rooms").replaceChildren(
    ...names.map((name) => {
      const link = document.createElement("a");
      link.href = `/r/${name}`;
      link.textContent = name;
      if (name === current) link.setAttribute("aria-current", "page");
      return item(link);
    }),
  );
}

// The name of a room as an address can have it: "Kaffee & Kuchen" becomes
// "kaffee-kuchen".
function roomName(text) {
  return text
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[\u0300-\u036f]/g, "")
    .replace(/[^a-z0-9_-]+/g, "-")
    .replace(/^[-_]+|-+$/g, "")
    .slice(0, 32);
}

export function listenForRoom() {
  const form = document.getElementById("open-room");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = roomName(form.elements.room.value);
    if (ROOM_NAME.test(name)) {
      location.assign(`/r/${name}`);
      return;
    }
    document.getElementById("room-help").textContent = "A room’s name needs a letter or a digit.";
  });
}

export function showPeople(user, { n, members }) {
  const named = [...members].sort((a, b) => (b.user === user) - (a.user === user));
  const items = named.map((member) => {
    const name = document.createElement("bdi");
    name.textContent = member.nick;
    if (member.user !== user) return item(name);
    const you = document.createElement("span");
    you.className = "you";
    you.textContent = "you";
    return item(name, " ", you);
  });
  if (n > members.length) items.push(item(`and ${n - members.length} more`));
  document.getElementById("people").replaceChildren(...items);
  document.getElementById("people-count").textContent = n;
  document.getElementById("here").textContent = n === 1 ? "1 here" : `${n} here`;
}

// The menu button is there on narrow screens only. What slides away must not
// be reached by the keyboard, so style.css hides it from that too.
export function listenForMenu() {
  const side = document.getElementById("side");
  const button = document.getElementById("menu");
  const show = (open) => {
    side.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
    if (open) side.querySelector("a, input").focus();
    else if (side.contains(document.activeElement)) button.focus();
  };
  button.addEventListener("click", () => show(!side.classList.contains("open")));
  document.getElementById("scrim").addEventListener("click", () => show(false));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && side.classList.contains("open")) show(false);
  });
}
