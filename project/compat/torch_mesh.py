"""Device meshes with several axes taken as one."""

from collections.abc import Iterable

from torch.distributed.device_mesh import DeviceMesh


def flattened(mesh: DeviceMesh) -> DeviceMesh:
    """Returns the mesh as one axis, over one process group; the root mesh remembers it."""
    return mesh._flatten()


def flattened_meshes(root: DeviceMesh) -> Iterable[DeviceMesh]:
    """Returns what `flattened` has made of the root mesh's axes so far."""
    return root._flatten_mapping.values()
