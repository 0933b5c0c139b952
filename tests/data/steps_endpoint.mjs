// An endpoint with steps in plain Node, without an SDK: an order is reserved, charged, awaited, billed and mailed.
import { createServer } from "node:http";
import { appendFileSync, readFileSync } from "node:fs";

const NEXT = "application/vnd.replayforge.next+json";
const EFFECTS = process.argv[2]; // the world outside: a line for everything that was done to it

// Do something outside, under a key that is the same however often it is tried.
function effect(asked, name) {
  appendFileSync(EFFECTS, `${name} ${asked.journal_key}/${name}\n`);
  return `${name} done`;
}

// Have one step recorded while this goes on.
async function checkpoint(asked, step, value) {
  const answer = await fetch(asked.checkpoint_url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ lease_token: asked.lease_token, did: [{ step, ok: value }] }),
  });
  if (answer.status !== 204) throw new Error(`the checkpoint was answered ${answer.status}`);
}

// Take the steps that the journal does not hold, and say what is next.
async function order(asked) {
  const { journal } = asked;
  let did = [];
  if (!("reserve" in journal)) await checkpoint(asked, "reserve", effect(asked, "reserve"));
  if (!("charge" in journal)) {
    const done = effect(asked, "charge");
    if (readFileSync(EFFECTS, "utf8").split("charge ").length === 2) { // the bank says no at first
      const error = { type: "BankDown", message: "try again" };
      return [NEXT, { did: [{ step: "charge", error }], next: { again: {} } }];
    }
    did = [{ step: "charge", ok: done }];
  }
  if (!("grace" in journal)) return [NEXT, { did, next: { sleep: { step: "grace", seconds: 0.05 } } }];
  if (!("parcel" in journal)) {
    return [NEXT, { did, next: { wait_for: { step: "parcel", event_type: "parcel.scanned" } } }];
  }
  if (!("bill" in journal)) {
    const call = { step: "bill", event_type: "invoice.make", payload: { order: asked.event.id } };
    return [NEXT, { did, next: { call } }];
  }
  if (!("mail" in journal)) return [NEXT, { did, next: { send: { step: "mail", event_type: "email.wanted" } } }];
  const { reserve, charge, bill, parcel } = journal;
  const result = { reserve: reserve.ok, charge: charge.ok, bill: bill.ok, parcel: parcel.ok.payload.number };
  return ["application/json", result];
}

const server = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  try {
    const asked = JSON.parse(body);
    const [kind, answer] =
      asked.event.event_type === "order.placed" ? await order(asked) : ["application/json", "made"];
    response.writeHead(200, { "Content-Type": kind }).end(JSON.stringify(answer));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
