"""What the host is told about the nodes."""

from __future__ import annotations

import asyncio
import inspect


def test_entry_point_lists_all_nodes(pack):
    extension = asyncio.run(pack.root.comfy_entrypoint())
    names = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
    assert len(names) == len(set(names)) == 14
    assert all(name.startswith("VIPaint") for name in names)
    assert not hasattr(pack.root, "NODE_CLASS_MAPPINGS")


def test_schemas_match_execute_and_explain_every_socket(pack):
    for node in pack.NODES:
        schema = node.GET_SCHEMA()
        parameters = inspect.signature(node.execute).parameters
        assert [i.id for i in schema.inputs] == list(parameters), schema.node_id
        for socket in schema.inputs:
            assert socket.tooltip, f"{schema.node_id}.{socket.id}"
            assert not socket.optional or parameters[socket.id].default == getattr(socket, "default", None)
        assert all(output.tooltip for output in schema.outputs), schema.node_id
        assert schema.description and schema.display_name and schema.search_aliases
        assert schema.category == "VIPaint"
