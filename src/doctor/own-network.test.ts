import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hasOwnNetwork } from './own-network.ts';

const ID = `0123456789ab${'cd'.repeat(26)}`;
const mountOf = (path: string): string =>
  `1 2 0:39 / / rw,relatime - overlay overlay rw\n3 1 8:1 ${path} /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n`;
const DOCKER = mountOf(`/var/lib/docker/containers/${ID}/hostname`);

describe('a container with a network of its own', () => {
  it('has its ID as its name', () => {
    assert.equal(hasOwnNetwork('0123456789ab\n', DOCKER), true);
    const podman = mountOf(`/var/lib/containers/storage/overlay-containers/${ID}/userdata/hostname`);
    assert.equal(hasOwnNetwork('0123456789ab', podman), true);
  });

  it('is none that is called like its host, even where that is a container with such a name, nor a host', () => {
    assert.equal(hasOwnNetwork('node-1\n', DOCKER), false);
    assert.equal(hasOwnNetwork('ba9876543210\n', DOCKER), false);
    assert.equal(hasOwnNetwork('', DOCKER), false);
    assert.equal(hasOwnNetwork('0123456789ab\n', ''), false);
    assert.equal(hasOwnNetwork('............\n', DOCKER), false);
  });
});
