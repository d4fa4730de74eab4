"""What every test gets: one thread, so that numbers and times do not depend on the machine."""

import torch

torch.set_num_threads(1)
