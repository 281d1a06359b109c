// What the scripts here share: a WebSocket peer over npm `ws`, and a deadline.
import WebSocket from "ws";

const PATIENCE_MS = 15_000;

/** Ends the process with a message unless the script ends it before. */
export function deadline(ms) {
  setTimeout(() => {
    console.error(`not done after ${ms} ms`);
    process.exit(1);
  }, ms).unref();
}

/** One connection. Messages queue up until they are asked for. */
export class Peer {
  #queue = [];
  #wake = () => {};
  closed = null;

  /** Bytes of messages sent so far by all that agreed on compression, before compression. */
  static deflatedBytes = 0;

  static async open(url, options = {}) {
    const peer = new Peer();
    // Without a threshold ws compresses everything, be its context taken over or not.
    peer.socket = new WebSocket(url, options.protocols ?? [], { perMessageDeflate: { threshold: 0 }, ...options });
    peer.socket.on("message", (data, binary) => {
      peer.#queue.push({ data: binary ? data : data.toString(), binary });
      peer.#wake();
    });
    peer.socket.on("close", (code, reason) => {
      peer.closed = { code, reason: reason.toString() };
      peer.#wake();
    });
    await new Promise((resolve, reject) => {
      peer.socket.once("open", resolve);
      peer.socket.once("error", reject);
    });
    return peer;
  }

  /** Connects as `user` and takes the welcome. */
  static async connect(base, user, options) {
    const peer = await Peer.open(`${base}/?userId=${encodeURIComponent(user)}`, options);
    peer.welcome = await peer.json();
    if (peer.welcome.type !== "welcome") throw new Error(`the first message is no welcome: ${JSON.stringify(peer.welcome)}`);
    return peer;
  }

  send(command) {
    this.sendAsIs(JSON.stringify(command));
  }

  /** Sends a message, or with `{ fin: false }` a part of one. */
  sendAsIs(data, options = {}) {
    if (this.socket.extensions !== "") Peer.deflatedBytes += Buffer.byteLength(data);
    this.socket.send(data, options);
  }

  /** The next message. */
  async next() {
    const until = Date.now() + PATIENCE_MS;
    while (this.#queue.length === 0) {
      if (this.closed !== null) throw new Error(`closed with ${this.closed.code} ${this.closed.reason}`);
      const left = until - Date.now();
      if (left <= 0) throw new Error(`no message within ${PATIENCE_MS} ms`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.#queue.shift();
  }

  /** The next message, which must be JSON text. */
  async json() {
    const { data, binary } = await this.next();
    if (binary) throw new Error("a binary message on a JSON connection");
    return JSON.parse(data);
  }

  /** The first message of this type; those before it are dropped. */
  async type(wanted) {
    for (;;) {
      const message = await this.json();
      if (message.type === wanted) return message;
      if (message.type === "error") throw new Error(`the server says ${JSON.stringify(message)}`);
    }
  }

  /** Joins a room and waits for the answer. */
  async join(roomId) {
    this.send({ type: "join_room", roomId, id: `join ${roomId}` });
    await this.type("joined");
  }

  async close() {
    this.socket.close(1000);
    await this.ended();
  }

  /** Waits for the end, and tells how it came. */
  async ended() {
    while (this.closed === null) await new Promise((resolve) => this.socket.once("close", resolve));
    return this.closed;
  }
}
