// Rooms of last values, as one writes them on top of a WebSocket server: a Map of the newest value of each item, and a timer
// that sends each subscriber what has changed. What is sent is made into a string once, and only when it is sent. `send`
// sends a string on a socket, `together` does several sends as one.
export function marketRooms(send, together) {
  const rooms = new Map();
  const timers = new Map();

  function roomOf(roomId) {
    let room = rooms.get(roomId);
    if (room === undefined) rooms.set(roomId, (room = { roomId, items: new Map(), offset: 0, all: new Set() }));
    return room;
  }

  function text(item) {
    if (item.text !== null) return item.text;
    const { roomId, name, seq, offset, from, content, time } = item;
    const head = { type: "room_msg", roomId, item: name, seq, offset, from };
    item.text = JSON.stringify(content === undefined ? { ...head, removed: true, time } : { ...head, content, time });
    return item.text;
  }

  function update(room, from, { item: name, content }) {
    let item = room.items.get(name);
    if (item === undefined) room.items.set(name, (item = { roomId: room.roomId, name, seq: 0 }));
    item.seq += 1;
    item.offset = room.offset += 1;
    item.from = from;
    item.content = content;
    item.time = Date.now();
    item.text = null;
    for (const subscriber of room.all) {
      if (subscriber.names === null || subscriber.names.has(name)) send(subscriber.socket, text(item));
    }
  }

  // What has changed for a subscriber since it was last sent something, in the order of offsets.
  function changed({ room, names, since }) {
    const found = [];
    if (names === null) {
      for (const item of room.items.values()) if (item.offset > since) found.push(item);
    } else {
      for (const name of names) {
        const item = room.items.get(name);
        if (item !== undefined && item.offset > since) found.push(item);
      }
    }
    return found.sort((one, other) => one.offset - other.offset);
  }

  function round(subscriber) {
    const items = changed(subscriber);
    subscriber.since = subscriber.room.offset;
    if (items.length === 0) return;
    together(subscriber.socket, () => {
      for (const item of items) send(subscriber.socket, text(item));
    });
  }

  function subscribersEvery(interval) {
    let subscribers = timers.get(interval);
    if (subscribers === undefined) {
      timers.set(interval, (subscribers = new Set()));
      setInterval(() => subscribers.forEach(round), Math.max(interval, 1));
    }
    return subscribers;
  }

  function join(socket, { roomId, id, mode, interval, items }) {
    const room = roomOf(roomId);
    const subscriber = { socket, room, names: items === undefined ? null : new Set(items), since: 0 };
    round(subscriber);
    send(socket, JSON.stringify({ type: "joined", id, roomId, epoch: "1", offset: room.offset }));
    const among = mode === "latest" ? subscribersEvery(interval ?? 0) : room.all;
    among.add(subscriber);
    return () => among.delete(subscriber);
  }

  // A command of a client; joins answer with what ends them.
  function command(socket, from, message) {
    switch (message.type) {
      case "room_msg":
        update(roomOf(message.roomId), from, message);
        break;
      case "room_msgs": {
        const room = roomOf(message.roomId);
        for (const one of message.updates) update(room, from, one);
        break;
      }
      case "join_room":
        return join(socket, message);
      case "ping":
        send(socket, '{"type":"pong"}');
        break;
    }
    if (message.id !== undefined) send(socket, JSON.stringify({ type: "ack", id: message.id }));
    return undefined;
  }

  return command;
}

// Who connects, by the URL of the request.
export function userOf(url) {
  const at = url.indexOf("userId=");
  return at < 0 ? crypto.randomUUID() : decodeURIComponent(url.slice(at + 7).split("&", 1)[0]);
}

export function welcome(userId) {
  return JSON.stringify({ type: "welcome", clientId: crypto.randomUUID(), userId, heartbeat: 30000 });
}
