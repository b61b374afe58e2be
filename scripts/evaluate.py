"""An evaluation loop to copy: torchrun --nproc-per-node 8 scripts/evaluate.py shards timm:resnet50.tv_in1k."""

from __future__ import annotations

import argparse

import torch

import wds_real


def main() -> None:
    """Evaluate one model in a loop over the loader, with the metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder or URL of the data set")
    parser.add_argument("model", help="timm:NAME, torchvision:NAME, package.module:factory or FILE.pt2")
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()

    dataset = wds_real.open_dataset(arguments.root)
    loaded = wds_real.load_model(arguments.model)
    device = wds_real.default_device()
    with wds_real.process_group(device) as world, torch.inference_mode():
        model = loaded.module.eval().to(device) if isinstance(loaded.module, torch.nn.Module) else loaded.module
        normalize = wds_real.Normalize(loaded.transform.mean, loaded.transform.std, device=device)
        loader = wds_real.Loader(dataset, batch_size=arguments.batch_size, transform=loaded.transform)
        metric = wds_real.RealAccuracy(dataset)
        for batch in loader:
            image = batch.image.to(device, non_blocking=True)  # uint8 (B, 3, H, W)
            metric.update(model(normalize(image)), batch)
        result = metric.compute()
    if world.rank == 0:
        print(result)


if __name__ == "__main__":
    main()
