// STOMP over WebSocket is text: a command, headers, an empty line, the body, and a zero byte. No library is needed.
"use strict";

const LINES = 20;
const BEAT = 10000; // ms between heartbeats, in both directions
const element = (id) => document.getElementById(id);

function frame(command, headers) {
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  return `${command}\n${lines.join("")}\n\0`;
}

function parse(text) {
  const end = text.indexOf("\n\n");
  const [command, ...lines] = text.slice(0, end).split("\n");
  // Of two headers of one name the first counts.
  const headers = new Map(lines.reverse().map((line) => line.split(/:(.*)/s, 2)));
  return { command, headers, body: text.slice(end + 2, text.lastIndexOf("\0")) };
}

function say(text) {
  element("state").textContent = text;
}

function show(text) {
  const item = document.createElement("li");
  // As text: what comes in a message is not to become a part of the page.
  item.textContent = text;
  element("ready").prepend(item);
  while (element("ready").children.length > LINES) element("ready").lastChild.remove();
}

function connect(settings, user, password, pause = 500) {
  const socket = new WebSocket(settings.url, ["v12.stomp"]);
  let refused = "";
  let beating;
  let last = Date.now();
  say(`Connecting to ${settings.url}`);

  socket.onopen = () =>
    socket.send(
      frame("CONNECT", {
        "accept-version": "1.2",
        host: settings.vhost,
        login: user,
        passcode: password,
        "heart-beat": `${BEAT},${BEAT}`,
      }),
    );

  socket.onmessage = (event) => {
    last = Date.now();
    if (event.data.trim() === "") return; // a heartbeat
    const { command, headers, body } = parse(event.data);
    if (command === "CONNECTED") {
      socket.send(frame("SUBSCRIBE", { id: "ready", destination: settings.destination, ack: "auto", receipt: "here" }));
      beating = setInterval(() => {
        // Nothing for three beats: the network has gone without a word.
        if (Date.now() - last > 3 * BEAT) socket.close();
        else socket.send("\n");
      }, BEAT);
      pause = 500;
    } else if (command === "RECEIPT") {
      element("login").hidden = true;
      say("Connected");
    } else if (command === "MESSAGE") {
      show(body);
    } else if (command === "ERROR") {
      refused = `RabbitMQ says: ${headers.get("message")}: ${body}`;
    }
  };

  socket.onclose = () => {
    clearInterval(beating);
    if (refused) {
      // To ask again would not help: the user has to do something.
      element("login").hidden = false;
      say(refused);
      return;
    }
    say(`No connection to ${settings.url}; is rabbitmq_web_stomp enabled? Trying again`);
    setTimeout(() => connect(settings, user, password, Math.min(2 * pause, 10000)), pause * (0.5 + Math.random()));
  };
}

async function main() {
  const settings = await (await fetch("settings.json")).json();
  element("user").value = settings.user;
  element("login").addEventListener("submit", (event) => {
    event.preventDefault();
    connect(settings, element("user").value, element("password").value);
    element("password").value = "";
  });
}

main();
