"""CGPO: a reward that counts where every judge passes."""
