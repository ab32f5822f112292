"""Matrix factorization and AutoRec as one writes them in plain PyTorch."""

import numpy as np
import torch
from other_libraries import Peer
from torch import nn


class Factors(nn.Module):
    def __init__(self, n_users, n_items, n_factors):
        super().__init__()
        self.users, self.items = (
            nn.Embedding(n_users, n_factors),
            nn.Embedding(n_items, n_factors),
        )
        self.user_biases, self.item_biases = (
            nn.Embedding(n_users, 1),
            nn.Embedding(n_items, 1),
        )
        self.mean = nn.Parameter(torch.zeros(()))
        for module in (self.users, self.items):
            nn.init.normal_(module.weight, std=0.1)
        for module in (self.user_biases, self.item_biases):
            nn.init.zeros_(module.weight)

    def forward(self, users, items):
        product = (self.users(users) * self.items(items)).sum(dim=1)
        biases = self.user_biases(users) + self.item_biases(items)
        return self.mean + biases[:, 0] + product


class TorchMF(Peer):
    """Biased matrix factorization: embeddings, Adam with weight decay, batches."""

    package = "torch"
    iterations = "n_epochs"
    fixed = {"n_factors": 50, "weight_decay": 1e-5, "n_epochs": 20}  # noqa: RUF012
    batch_size = 1_024
    learning_rate = 3e-3

    def load(self):
        torch.manual_seed(self.seed)

    def to_data(self, users, items, y):
        return [torch.as_tensor(users), torch.as_tensor(items), torch.as_tensor(y)]

    def train_on(self, data):
        users, items, y = data
        y = y.float()
        shape = [len(ids) for ids in self.ids]
        self.model = Factors(*shape, self.parameters["n_factors"])
        with torch.no_grad():
            self.model.mean.copy_(y.mean())
        optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=self.learning_rate,
            weight_decay=self.parameters["weight_decay"],
        )
        for _ in range(self.parameters["n_epochs"]):
            for batch in torch.randperm(len(y)).split(self.batch_size):
                optimizer.zero_grad()
                predicted = self.model(users[batch], items[batch])
                nn.functional.mse_loss(predicted, y[batch]).backward()
                optimizer.step()

    def rate(self, users, items):
        # The unknown are rated by the mean.
        known = (users >= 0) & (items >= 0)
        with torch.no_grad():
            pairs = torch.as_tensor(users[known]), torch.as_tensor(items[known])
            rated = np.full(len(users), self.model.mean.item())
            rated[known] = self.model(*pairs).numpy()
        return rated


class TorchAutoRec(Peer):
    """Item-based AutoRec on dense batches of items, as public code has it."""

    package = "torch"
    iterations = "n_epochs"
    fixed = {"n_hidden": 500, "penalty": 25.0, "n_epochs": 30}  # noqa: RUF012
    batch_size = 512
    learning_rate = 1e-3

    def load(self):
        torch.manual_seed(self.seed)

    def to_data(self, users, items, y):
        n_users, n_items = (len(ids) for ids in self.ids)
        ratings = torch.zeros(n_items, n_users)
        ratings[items, users] = torch.as_tensor(y, dtype=torch.float32)
        return ratings

    def train_on(self, data):
        self.data, mask = data, (data != 0).float()
        n_items, n_users = data.shape
        n_hidden = self.parameters["n_hidden"]
        encode, decode = nn.Linear(n_users, n_hidden), nn.Linear(n_hidden, n_users)
        self.model = nn.Sequential(encode, nn.Sigmoid(), decode)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)
        penalty = self.parameters["penalty"]
        for _ in range(self.parameters["n_epochs"]):
            for batch in torch.randperm(n_items).split(self.batch_size):
                optimizer.zero_grad()
                residuals = (self.model(data[batch]) - data[batch]) * mask[batch]
                size = encode.weight.square().sum() + decode.weight.square().sum()
                (residuals.square().sum() + penalty / 2 * size).backward()
                optimizer.step()

    def rate(self, users, items):
        with torch.no_grad():
            table = self.model(self.data).numpy()
        known = (users >= 0) & (items >= 0)
        mean = self.data[self.data != 0].mean().item()
        return np.where(known, table[items, users], mean)
