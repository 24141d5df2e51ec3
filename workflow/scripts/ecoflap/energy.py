"""What a GPU says of the energy it has used, through the driver's own library."""

import ctypes
import functools

DRIVER = "libnvidia-ml.so.1"


@functools.cache
def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    return driver if driver.nvmlInit_v2() == 0 else None


def joules(device: str) -> float | None:
    """Returns the energy that a GPU has used since its driver was loaded.

    It is the whole board's: what other processes use on it counts too.

    Args:
        device: A torch device.

    Returns:
        Joules; None for a CPU and where driver or GPU do not tell it.
    """
    driver = _driver() if device.startswith("cuda") else None
    if driver is None:
        return None
    import torch

    # By its UUID: torch counts the visible devices only, the driver all of them.
    name = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if driver.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)) != 0:
        return None
    if driver.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
        return None
    return millijoules.value / 1000
