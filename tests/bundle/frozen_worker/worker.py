"""The example under an id of its own, so that its lock and its folder are nobody else's."""

from my_worker.my_worker import MyWorker


class FrozenWorker(MyWorker):
    """Lists set-uid, set-gid and world-writable files below a folder, frozen."""

    id = "FrozenWorker"
    name = "Frozen Worker"
    modules = (".handlers",)
    settings_interval = 0.5


if __name__ == "__main__":
    FrozenWorker.main()
