// ioredis, node-redis and Keyv as their users use them, against two Locals of one Global.
// Usage: node clients.mjs HOST:PORT_OF_A HOST:PORT_OF_B, with the packages installed in a folder above.
import assert from "node:assert/strict";
import { createKeyv } from "@keyv/redis";
import Redis from "ioredis";
import { createClient } from "redis";

const [a, b] = process.argv.slice(2, 4).map((at) => {
  const [host, port] = at.split(":");
  return { host, port: Number(port) };
});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventually(what, holds) {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, what);
    await pause(10);
  }
}

async function ready(set) {
  await eventually("the namespace is there", () => set().then(() => true, () => false));
}

async function withIoredis() {
  // Its ready check waits until INFO says `loading:0`.
  const one = new Redis({ ...a, db: 1 });
  const other = new Redis({ ...b, db: 1 });
  await ready(() => one.set("ready", "yes"));
  assert.equal(await one.set("io", "1"), "OK");
  assert.equal(await other.get("io"), "1");
  assert.equal(await one.set("io", "2", "NX"), null);
  assert.equal(await one.incr("io"), 2);
  assert.equal(await other.get("io"), "2");
  assert.deepEqual(await one.mget("io", "nope"), ["2", null]);
  const replies = await one.pipeline().set("p", "1").get("p").incr("p").exec();
  assert.deepEqual(replies, [[null, "OK"], [null, "1"], [null, 2]]);
  assert.deepEqual(await one.multi().set("p", "5").incr("p").get("p").exec(), [[null, "OK"], [null, 6], [null, "6"]]);
  const many = await Promise.all(Array.from({ length: 1000 }, () => one.get("p")));
  assert.ok(many.every((value) => value === "6"));
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, n) => n & 255));
  await one.set(bytes.subarray(0, 100), bytes);
  assert.deepEqual(await other.getBuffer(bytes.subarray(0, 100)), bytes);
  await assert.rejects(one.call("NOPE"), /unknown command 'NOPE'/);
  const found = [];
  for await (const keys of one.scanStream({ match: "io*" })) found.push(...keys);
  assert.ok(found.includes("io"));
  assert.equal(await one.del("io", "p"), 2);
  assert.equal(await other.get("io"), null);
  await Promise.all([one.quit(), other.quit()]);
  console.log("ok: ioredis");
}

async function withNodeRedis(RESP) {
  const connect = (place) => createClient({ socket: { host: place.host, port: place.port }, database: 1, RESP }).connect();
  const [one, other] = await Promise.all([connect(a), connect(b)]);
  await ready(() => one.set("ready", "yes"));
  assert.equal(await one.set("node", "1"), "OK");
  assert.equal(await other.get("node"), "1");
  assert.equal(await one.incr("node"), 2);
  assert.deepEqual(await one.mGet(["node", "nope"]), ["2", null]);
  assert.deepEqual(await one.multi().set("node", "5").incr("node").exec(), ["OK", 6]);
  assert.equal(await other.get("node"), "6");
  assert.equal(await one.expire("node", 100), 1);
  assert.ok((await one.ttl("node")) > 90);
  assert.equal(await one.del("node"), 1);
  assert.equal(await other.get("node"), null);
  await Promise.all([one.close(), other.close()]);
  console.log(`ok: node-redis with RESP${RESP}`);
}

async function withClientSideCache() {
  const clientSideCache = { ttl: 0, maxEntries: 100, evictPolicy: "LRU" };
  const one = await createClient({ socket: { ...a }, database: 1, RESP: 3, clientSideCache }).connect();
  const other = await createClient({ socket: { ...b }, database: 1 }).connect();
  await ready(() => other.set("csc", "0"));
  for (let n = 1; n < 20; n++) {
    await other.set("csc", String(n));
    await eventually("the invalidation is read", async () => (await one.get("csc")) === String(n));
  }
  await Promise.all([one.close(), other.close()]);
  console.log("ok: node-redis, client-side caching");
}

async function withKeyv() {
  const connect = ({ host, port }) => createKeyv(`redis://${host}:${port}/1`, { namespace: "keyv" });
  const [one, other] = [connect(a), connect(b)];
  assert.equal(await one.set("x", { n: 1 }), true);
  assert.deepEqual(await other.get("x"), { n: 1 });
  assert.equal(await one.set("x", { n: 2 }, 100_000), true);
  assert.deepEqual(await other.get("x"), { n: 2 });
  await one.setMany([{ key: "y", value: "1" }, { key: "z", value: "2", ttl: 100_000 }]);
  assert.deepEqual(await other.getMany(["y", "z", "nope"]), ["1", "2", undefined]);
  assert.deepEqual(await other.hasMany(["x", "nope"]), [true, false]);
  assert.equal(await one.delete("x"), true);
  assert.equal(await other.get("x"), undefined);
  const keys = [];
  for await (const [key] of other.iterator("keyv")) keys.push(key);
  assert.deepEqual(keys.sort(), ["y", "z"]);
  await one.clear();
  assert.deepEqual(await other.getMany(["y", "z"]), [undefined, undefined]);
  await Promise.all([one.disconnect(), other.disconnect()]);
  console.log("ok: @keyv/redis");
}

await withIoredis();
await withNodeRedis(2);
await withNodeRedis(3);
await withClientSideCache();
await withKeyv();
process.exit(0);
