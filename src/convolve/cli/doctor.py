def doctor(*, json: bool = False) -> None:
    """Print versions.

    Parameters
    ----------
    json
        Print one JSON document.
    """
    print("hi", json)
