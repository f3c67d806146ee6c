"""Scripts of users' own, which know nothing of dlsys."""

# Plain torch, as it is written for torchrun: it goes on from its own checkpoint, and its gradients are the
# mean over all rows whatever the number of workers.
TRAIN = """
import os, signal, sys, time
import mlflow, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

distributed.init_process_group("gloo")
rank, size = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(0)
rows, labels = torch.randn(64, 8), torch.randn(64, 1)
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
kept, begin = os.path.join(os.environ["DLSYS_CHECKPOINTS"], "last.pt"), 0
if os.path.exists(kept):
    saved = torch.load(kept)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    begin = saved["step"]
    print(f"goes on from step {begin}, restart {os.environ['TORCHELASTIC_RESTART_COUNT']}")
parallel = DistributedDataParallel(model)
if rank == 0:
    mlflow.start_run()
    mlflow.log_params({"lr": 0.1})
for step in range(begin, 6):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(parallel(rows[rank::size]), labels[rank::size])
    loss.backward()
    if "die" in sys.argv and rank == 1 and begin == 0 and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.step()
    distributed.all_reduce(loss)
    if rank == 0:
        mlflow.log_metric("loss", loss.item() / size, step=step)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
        torch.save(state, kept + ".new")
        os.rename(kept + ".new", kept)
distributed.destroy_process_group()
# Threads of gloo may hold something of the group yet. Python ending under them aborts, about once in a
# hundred times on a busy machine, whoever started the script.
time.sleep(0.5)
"""
