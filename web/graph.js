// Ways through the graph and its subgraphs.

import { app } from "../../scripts/app.js";

/** A node by the server's id: in subgraphs ids are paths. */
export function nodeById(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(/^\d+$/.test(part) ? Number(part) : part);
    graph = node?.subgraph;
  }
  return node;
}

/** All nodes, those of subgraphs among them. */
export function allNodes(graph = app.rootGraph ?? app.graph) {
  return (graph?._nodes ?? []).flatMap((node) => [node, ...(node.subgraph ? allNodes(node.subgraph) : [])]);
}

/** The node from which the link of an input comes, out of subgraphs too; null where there is none. */
export function source(node, slot) {
  const link = node.inputs?.[slot]?.link;
  const { origin_id: origin, origin_slot: output } = (link != null && node.graph?.getLink(link)) || {};
  if (origin == null) return null;
  if (origin !== node.graph.inputNode?.id) return node.graph.getNodeById(origin);
  const outer = allNodes().find((one) => one.subgraph === node.graph);
  return outer ? source(outer, output) : null;
}
