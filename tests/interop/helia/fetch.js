// Fetches one file of a folder by its CID, as a browser page would with Helia: providers from a delegated router,
// blocks from trustless gateways over HTTP, and nothing else. Prints what came as JSON.
import { createHash } from "node:crypto";
import { withHTTP } from "@helia/http";
import { unixfs } from "@helia/unixfs";
import { createHeliaLight } from "helia";
import { CID } from "multiformats/cid";

const { FARCAST_ROUTER, FARCAST_CID, FARCAST_PATH } = process.env;
const awake = setInterval(() => {}, 1_000); // node leaves while a fetch is pending otherwise
const helia = await withHTTP(createHeliaLight(), {
  delegatedRouters: [FARCAST_ROUTER],
  recursiveGateways: [],
  allowInsecure: true,
  allowLocal: true,
}).start();
const sha256 = createHash("sha256");
let bytes = 0;
const options = { path: FARCAST_PATH, signal: AbortSignal.timeout(60_000) };
for await (const piece of unixfs(helia).cat(CID.parse(FARCAST_CID), options)) {
  sha256.update(piece);
  bytes += piece.length;
}
await helia.stop();
clearInterval(awake);
console.log(JSON.stringify({ bytes, sha256: sha256.digest("hex"), node: process.version }));
