// A client of the in-betweening server, written from PROTOCOL.md alone.
//
//   for await (const frame of inbetweens({ width, height, num_frames: 17, keyframes: [[0, rgb8], [16, rgb8]] })) ...
//
// Leaving the loop cancels. Whatever breaks on the way, every frame comes once, in order.
import { decode, encode } from "@msgpack/msgpack";
import { randomUUID } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { homedir, platform } from "node:os";
import { join } from "node:path";
import { Dealer } from "zeromq";

const WINDOW = 8; // frames that may wait here untaken
const PING_MS = 1000;
const LOST_AFTER = 4; // pings without an answer
const UNHEARD_AFTER = 5; // pings until a generate that was not accepted is said again
const MOST_TRIES = 5; // attempts in a row that bring no frame

export function connectionFile(env = process.env) {
  if (env.SFSERVER_CONNECTION_FILE) return env.SFSERVER_CONNECTION_FILE;
  const own = { win32: env.LOCALAPPDATA, darwin: join(homedir(), "Library", "Application Support") }[platform()];
  return join(own ?? (env.XDG_RUNTIME_DIR || join(homedir(), ".local", "state")), "sfserver", "connection.json");
}

function readConnection(path) {
  if (platform() !== "win32" && (statSync(path).mode & 0o077) !== 0)
    throw new Error(`${path} can be read by other users; stop the server, delete it and start again`);
  const connection = JSON.parse(readFileSync(path, "utf8"));
  if (connection.format !== 1) throw new Error(`${path} has format ${connection.format}, this client reads 1`);
  return connection;
}

/** Frames {index, width, height, encoding, confidence, data} of a `generate` without id; keyframes are [at, picture],
 * RGB8 or what the request says with `channels` and `depth`, which a frame of another kind than RGB8 has too. */
export async function* inbetweens(request, file = connectionFile()) {
  const conversation = new Conversation(request, file);
  try {
    conversation.open();
    for (let frame; (frame = await conversation.next()); conversation.taken()) yield frame;
  } finally {
    await conversation.close();
  }
}

class Conversation {
  session = randomUUID();
  queue = [];
  wake = () => {};
  sending = Promise.resolve();
  unanswered = 0;
  nonce = 0;
  tries = 0;
  delivered = 0; // frames put into the queue
  used = 0; // frames taken out of it by the program

  constructor({ keyframes, channels, depth, ...fields }, file) {
    const { width, height, num_frames } = fields;
    const held = new Set(keyframes.map(([at]) => at));
    this.file = file;
    this.buffers = keyframes.map(([, picture]) => picture);
    const described = keyframes.map(([at], buffer) => ({ at, buffer, width, height, channels, depth }));
    this.fields = { seed: 0, ...fields, keyframes: described };
    this.wanted = Array.from({ length: num_frames }, (_, i) => i).filter((i) => !held.has(i));
    this.timer = setInterval(() => this.tick(), PING_MS);
  }

  open() {
    this.socket?.close();
    this.socket = this.boot = this.id = undefined;
    const found = readConnection(this.file);
    this.unanswered = 0;
    this.socket = new Dealer({
      linger: 0, sendHighWaterMark: 256, receiveHighWaterMark: 256,
      curveServerKey: found.server_public_key,
      curvePublicKey: found.client_public_key, curveSecretKey: found.client_secret_key,
    });
    this.socket.connect(found.endpoint);
    this.listen(this.socket);
    this.hello();
  }

  async listen(socket) {
    for await (const [header, ...buffers] of socket) if (socket === this.socket) this.heard(decode(header), buffers);
  }

  async next() {
    while (!this.queue.length && !this.ended) await new Promise((resolve) => (this.wake = resolve));
    if (!this.queue.length && this.error) throw this.error;
    return this.queue.shift();
  }

  taken() {
    this.used += 1;
    this.credit();
  }

  async close() {
    clearInterval(this.timer);
    if (this.id && !this.ended) this.send({ type: "cancel", id: this.id });
    this.send({ type: "bye" });
    await this.sending;
    if (this.socket) this.socket.linger = 200; // a moment for the last words to leave
    this.socket?.close();
    this.socket = undefined;
  }

  send(header, buffers = []) {
    const socket = this.socket; // one send at a time; what a closed socket does not take, the next attempt says anew
    const parts = [encode(header, { ignoreUndefined: true }), ...buffers];
    this.sending = this.sending.then(() => socket?.send(parts)).catch(() => {});
  }

  hello() {
    this.send({ type: "hello", protocol: 2, client: "node example", session: this.session });
  }

  ask() {
    if (this.ended) return;
    if (++this.tries > MOST_TRIES) return this.end(new Error(`${MOST_TRIES} attempts brought no frame`));
    if (this.id) this.send({ type: "cancel", id: this.id }); // it may live on; of one that does not nobody hears
    Object.assign(this, { id: randomUUID(), accepted: false, asked: this.nonce, before: this.delivered, behind: 0 });
    const engine = this.fields.engine ?? this.recommended;
    const generate = { ...this.fields, type: "generate", id: this.id, engine, credit: this.allowed() };
    this.send({ ...generate, resume_from: this.wanted[this.delivered] }, this.buffers);
  }

  allowed() {
    return this.used + WINDOW - this.before; // a running total of this id; what waits here untaken is still ours
  }

  credit() {
    if (this.id) this.send({ type: "credit", id: this.id, total: this.allowed() });
  }

  tick() {
    if (!this.socket || ++this.unanswered > LOST_AFTER) {
      try {
        return this.open();
      } catch {
        return; // a server that is started anew has no connection file for a moment: the next tick looks again
      }
    }
    if (!this.boot) return this.hello();
    if (!this.accepted && this.nonce - this.asked >= UNHEARD_AFTER) this.ask();
    this.credit(); // again, in case one was lost
    this.send({ type: "ping", nonce: ++this.nonce });
  }

  heard(message, buffers) {
    this.unanswered = 0;
    if (message.type === "welcome" && message.boot !== this.boot) {
      Object.assign(this, { boot: message.boot, recommended: message.default_engine });
      this.ask();
    } else if (message.type === "pong") this.pong(message);
    else if (message.type === "failed" && [this.id, null].includes(message.id)) this.failed(message);
    else if (message.id === this.id) this.ofRequest(message, buffers); // else of an attempt that was given up
  }

  ofRequest({ type, id, ...message }, [data]) {
    this.accepted = true;
    const isNext = message.index === this.wanted[this.delivered]; // pongs tell when one is missing for good
    if (type === "frame" && isNext) {
      this.delivered += 1;
      this.tries = 0;
      this.queue.push({ ...message, data });
      this.wake();
    }
    if (type === "done") this.delivered === this.wanted.length ? this.end() : this.ask();
  }

  pong({ boot, yours }) {
    if (boot !== this.boot) return this.hello(); // another server under the same keys: its welcome asks again
    const mine = yours.find(({ id }) => id === this.id);
    if (!mine) return this.accepted && this.ask();
    this.behind = mine.sent > this.delivered - this.before ? this.behind + 1 : 0;
    if (this.behind > 2) this.ask();
  }

  failed({ code, message, retryable }) {
    if (!retryable) return this.end(new Error(`${code}: ${message}`));
    if (code === "hello_first") return this.hello();
    setTimeout(() => this.ask(), PING_MS / 4);
  }

  end(error) {
    Object.assign(this, { error, ended: true });
    this.wake();
  }
}
