"""ComfyUI's entry point of the pack."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

# Help pages of the nodes, in `docs/`.
WEB_DIRECTORY = "./web"


class VIPaintExtension(ComfyExtension):
    async def on_load(self) -> None:
        # The first import of nodes says what this ComfyUI lacks: before anything else is taken from it.
        await self.get_node_list()
        from server import PromptServer

        from .nodes import routes

        routes.register(PromptServer.instance)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .nodes import NODES

        return list(NODES)


async def comfy_entrypoint() -> VIPaintExtension:
    return VIPaintExtension()
