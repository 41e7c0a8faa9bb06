"""Whole modules: cuts a PyTorch module into parts, has kernels found for them, and puts in what is faster and correct.

    capture   the calls of PyTorch that a module makes, as the superoptimizer reads them
    pieces    parts of them, each with a problem of its own
    optimize  a problem's winner, by everything that proposes and judges
    contest   the winner against torch.compile of the same part
    cache     what was found, for the next process
    assemble  the module again, with kernels where they were found
    backend   all of this, as torch.compile calls it

Beside the cli: it introduces rooms to each other as the cli does. It runs in the user's process, and the modules that
import torch are imported by the first call, so that `import tilesmith` stays light.
"""
