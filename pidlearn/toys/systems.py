SYSTEMS = {}
System = None


def system(name): ...
