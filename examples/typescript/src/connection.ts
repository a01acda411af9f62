// How every example reaches the suite: one address, one credential.

import { readFileSync } from "node:fs";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

export const project = `projects/${process.env.MODELYARD_PROJECT ?? "default"}`;

export function credential(): string {
  if (process.env.MODELYARD_TOKEN) return process.env.MODELYARD_TOKEN;
  const file = process.env.MODELYARD_TOKEN_FILE;
  if (!file) throw new Error("set MODELYARD_TOKEN or MODELYARD_TOKEN_FILE");
  return readFileSync(file, "utf8").trim();
}

export function connect(token: string): Transport {
  const authorised: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const server = process.env.MODELYARD_SERVER ?? "127.0.0.1:7070";
  return createGrpcTransport({ baseUrl: `http://${server}`, interceptors: [authorised] });
}
